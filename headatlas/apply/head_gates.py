"""Causal head gating: which heads a task needs, which stand in its way, and which do neither, by learned gates. Nam et al. 2025.

Every head's output is multiplied by a gate between 0 and 1, and all gates are learned together, so that a head's role is one
among the others, where ablation asks for each head alone. They are learned three times: freely, and from there on under pressure to
open and under pressure to close, which is a term of the loss in the gates' logits, cut off at 4 (of a review of the paper, and of a
program that others made after it; the paper itself was not read). What stays closed under the first pressure interferes, what stays open
under the second facilitates, and what goes with either is irrelevant. Differs: the paper's gates start anywhere between 0 and 1 and take
500 steps of 32 prompts each; these start between half and all open, which a processor can wait for.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from headatlas.apply.recipe.learning import learn
from headatlas.edits import Scale, Zero
from headatlas.edits.base import OnHeads
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.prompts import Prompts, prompts_for
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.methods.sweeps.effects import sign_flip_p
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.given import demand_numbers
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import Batch, Metric
from headatlas.task.answers import log_probability

FACILITATING, INTERFERING, IRRELEVANT, BY_SEED = "facilitating", "interfering", "irrelevant", "by seed"
HELPS, HURTS, UNSEEN = "helps", "hurts", "not seen"
OPEN = 0.5  # from here on a gate counts as open
START = 2.0, 1.0  # of the gates' logits, mean and standard deviation: most of them open
CUT = 4.0  # the gates' logits are pressed up to here
FOUND = 0.05  # share of false findings among the heads that help or hurt alone


@dataclass(frozen=True)
class GateOptions:
    """How gates are learned.

    steps, rate: of Adam, for each of the three fits (free, opened, closed). pressure: nats for each unit of the mean of the gates' logits. seeds: how many
    times, each with other batches and other starts. draws: random sets of heads of the same layers to compare the sufficient set with. Raises BadInput.
    """

    steps: int = 60
    rate: float = 0.2
    pressure: float = 0.1
    seeds: int = 3
    draws: int = 5

    def __post_init__(self) -> None:
        demand_numbers(self)
        if self.steps < 1 or self.seeds < 1 or self.draws < 1 or not self.rate > 0 or not self.pressure > 0:
            raise BadInput(
                "Gates need 1 step, 1 seed, 1 draw, a rate and a pressure above 0 at least.", "Check the numbers given."
            )


@dataclass(frozen=True)
class HeadGates:
    """opened, closed [seed, head]: gates under pressure to open and to close.

    effect [head]: by how much the metric falls without each head alone; q [head]: of that being chance, by flipped signs over
    prompts, as a rate of false findings among all heads. metric: without any change, on held-out prompts; alone [seed]: with nothing but the seed's sufficient set (the heads that stay open
    under pressure to close), all other heads zero; random [seed, draw]: with as many random heads of the same layers; none: with none.
    """

    heads: tuple[HeadId, ...]
    opened: Array
    closed: Array
    effect: Array
    q: Array
    metric: float
    alone: Array
    random: Array
    none: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def roles(self) -> list[list[str]]:
        """[seed][head] facilitating, interfering or irrelevant: whichever of F = closed, I = 1 - opened and opened (1 - closed) is highest."""
        scores = np.stack([self.closed, 1 - self.opened, self.opened * (1 - self.closed)])
        names = (FACILITATING, INTERFERING, IRRELEVANT)
        return [[names[i] for i in row] for row in scores.argmax(0)]

    @property
    def role(self) -> list[str]:
        """[head] the role that all seeds agree on, else "by seed"."""
        return [one[0] if len(set(one)) == 1 else BY_SEED for one in zip(*self.roles, strict=True)]

    @property
    def verdict(self) -> list[str]:
        """[head] what its removal alone says: it helps (without it the metric falls), hurts (rises), or nothing is seen (q above 0.05)."""
        return [
            UNSEEN if not q <= FOUND else HELPS if effect > 0 else HURTS
            for effect, q in zip(self.effect, self.q, strict=True)
        ]

    @property
    def agreement(self) -> dict[str, dict[str, int]]:
        """Role (of all seeds) -> verdict of removal alone -> how many heads have both."""
        pairs = Counter(zip(self.role, self.verdict, strict=True))
        return {
            role: {verdict: pairs[role, verdict] for verdict in (HELPS, HURTS, UNSEEN)}
            for role in (FACILITATING, INTERFERING, IRRELEVANT, BY_SEED)
        }

    @property
    def sufficient(self) -> list[frozenset[HeadId]]:
        """[seed] the heads that stay open although all are pressed to close."""
        return [frozenset(h for h, gate in zip(self.heads, row, strict=True) if gate > OPEN) for row in self.closed]

    @property
    def overlap(self) -> float:
        """Mean Jaccard index of the sufficient sets of two seeds; NaN for one seed. Low where several sets suffice."""
        pairs = list(itertools.combinations(self.sufficient, 2))
        return float(np.mean([len(a & b) / max(len(a | b), 1) for a, b in pairs])) if pairs else float("nan")

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data, a row for each head."""
        rows = [
            {
                "head": str(head), "role": role, "opened": self.opened[:, i].tolist(), "closed": self.closed[:, i].tolist(),
                "effect": float(self.effect[i]), "q": float(self.q[i]), "verdict": self.verdict[i],
            }
            for i, (head, role) in enumerate(zip(self.heads, self.role, strict=True))
        ]  # fmt: skip
        sets = [sorted(map(str, one)) for one in self.sufficient]
        return {
            **self.facts, "metric": self.metric, "none": self.none, "alone": self.alone.tolist(), "random": self.random.tolist(),
            "sufficient": sets, "overlap": self.overlap, "agreement": self.agreement, "heads": rows,
        }  # fmt: skip


def head_gates(
    model: Model,
    batch: Inputs | Prompts,
    held_out: Inputs | Prompts,
    *,
    options: GateOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadGates:
    """Learn gates on prompts with answers, and say on held-out ones whether the heads that stay open suffice.

    Gates are learned by the log-probability of the answers; the metric of the prompts tells what single heads and sets do on
    held_out. A head that is taken away gives zero, at every token. Raises BadInput, UnknownName, UnfitTask, UnsupportedModel.
    """
    options, progress = options or GateOptions(), progress or Silent()
    given, test = prompts_for(model, batch, demand=False), prompts_for(model, held_out, demand=False)
    fits = [_fitted(model, given.batch, options, seed + number, progress) for number in range(options.seeds)]
    opened, closed = (np.stack([fit[i] for fit in fits]) for i in range(2))
    bench = CachedRuns(model, test.batch, test.metric)
    removed = bench.measure([[Zero([head])] for head in model.heads])  # [head, example]
    effects = test.metric.worse(removed - bench.clean).T  # [example, head]
    alone, random = [], []
    for number, row in enumerate(closed):
        kept = [head for head, gate in zip(model.heads, row, strict=True) if gate > OPEN]
        rng = np.random.default_rng(seed + number)
        others = [sorted(matched(kept, _rivals(model.heads, kept), rng)) for _ in range(options.draws)]
        alone.append(_only(model, kept, test.batch, test.metric))
        random.append([_only(model, one, test.batch, test.metric).mean() for one in others])
    facts = {
        "model": model.name, "prompts": given.name, "held_out": test.name, "metric_name": test.metric.name, "seed": seed, **vars(options)
    }  # fmt: skip
    low, high = stats.interval(np.stack(alone, 1))
    facts |= {"alone_low": low.tolist(), "alone_high": high.tolist()}
    return HeadGates(
        model.heads, opened, closed, effects.mean(0), stats.false_discovery(sign_flip_p(effects, seed)),
        float(bench.clean.mean()), np.array([one.mean() for one in alone]), np.array(random),
        float(_only(model, [], test.batch, test.metric).mean()), facts,
    )  # fmt: skip


def _fitted(model: Model, batch: Batch, options: GateOptions, seed: int, progress: Progress) -> tuple[Array, Array]:
    """[head] gates under pressure to open, and under pressure to close; both go on from gates that were learned without any."""
    generator = torch.Generator().manual_seed(seed)
    mean, spread = START
    start = mean + spread * torch.randn(len(model.heads), generator=generator, dtype=torch.float32)

    def learned(start: torch.Tensor, sign: float) -> torch.Tensor:
        logits = start.clone().requires_grad_(True)

        def gates() -> tuple[Mapping[HeadId, torch.Tensor], Mapping[HeadId, torch.Tensor]]:
            return dict(zip(model.heads, logits.sigmoid()[:, None].unbind(0), strict=True)), {}

        def pressed() -> torch.Tensor:
            return -sign * options.pressure * logits.clamp(-CUT, CUT).mean()

        learn(
            model, batch, log_probability, gates, [logits], penalty=pressed, steps=options.steps, rate=options.rate,
            seed=seed, progress=progress,
        )  # fmt: skip
        return logits.detach()

    free = learned(start.to(model.device), 0.0)
    opened, closed = (learned(free, sign).sigmoid().double().cpu().numpy() for sign in (1.0, -1.0))
    return opened, closed


def _rivals(heads: Sequence[HeadId], kept: Sequence[HeadId]) -> list[HeadId]:
    """Heads to draw random sets from: of each layer those that were not kept, or all where these are fewer than the kept ones."""
    taken, every = (Counter((head.stack, head.layer) for head in some) for some in (kept, heads))
    return [h for h in heads if h not in kept or every[h.stack, h.layer] < 2 * taken[h.stack, h.layer]]


def _only(model: Model, kept: Sequence[HeadId], batch: Batch, metric: Metric) -> Array:
    """[example] the metric where all heads but these give zero."""
    others = sorted(set(model.heads) - set(kept))
    edits: list[OnHeads] = [Scale(others, 0.0)] if others else []
    return metric_of(model, batch, metric, edits=edits)
