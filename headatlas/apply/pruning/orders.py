"""In which order heads go: by Michel's importance, by gates under an L0 penalty, by what ablation costs, or by lot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headatlas.apply.pruning.gates import l0_gates
from headatlas.apply.pruning.options import PruneOptions
from headatlas.choices import PRUNING
from headatlas.edits import Mean, OnHeads, Zero
from headatlas.heads import HeadId
from headatlas.methods.attribution.importance import head_importance
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.progress import Part, Progress
from headatlas.task import Batch, Metric

_LOGITS = 1 << 26  # logits of a batch held at once


@dataclass(frozen=True)
class Order:
    """heads: the first to go first; equals by layer and head. score [head] in the order of the model: what they were ranked by, effects
    of ablation by their size.

    open: the heads that gates left open (l0), else None. facts: how the order was made.
    """

    name: str
    heads: tuple[HeadId, ...]
    score: Array
    open: frozenset[HeadId] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        first, last = (" ".join(map(str, part)) for part in (self.heads[:4], self.heads[-4:]))
        return f"Order({self.name}: {len(self.heads)} heads, first to go {first}, last {last})"


@dataclass(frozen=True)
class Removal:
    """What stands in the place of removed heads: zero, or `means` (stack, layer) -> [head, d_value]."""

    means: Mapping[Any, Any] | None = None

    def of(self, heads: Sequence[HeadId]) -> list[OnHeads]:
        """The edits that remove some heads."""
        if not heads:
            return []
        return [Zero(heads) if self.means is None else Mean(heads, self.means)]


def measured(
    model: Model,
    batch: Batch,
    metric: Metric,
    edits: Sequence[Sequence[OnHeads]],
    step: str,
    progress: Progress,
) -> Array:
    """[run, example] the metric under each list of edits, exactly, pieces of the batch one after the other; they advance `step`."""
    wanted = metric.positions(batch).shape[1] * max(model.vocabulary_size, 1)
    parts = batch.chunks(max(1, _LOGITS // wanted))
    told = Part(progress, step, len(parts) * len(edits))
    return np.concatenate([CachedRuns(model, part, metric).measure(edits, progress=told) for part in parts], 1)


def order_of(
    model: Model, name: str, batch: Batch, metric: Metric, means: Any, options: PruneOptions, progress: Progress
) -> Order:
    """The heads of a model in the order called `name`, from a batch. Raises BadInput, UnsupportedModel."""
    PRUNING.demand(name)
    if name == "random":
        return random_order(model, options.seed)
    if name == "l0":
        gates = l0_gates(
            model, batch, metric, penalty=options.penalty, steps=options.steps, rate=options.rate, seed=options.seed,
            progress=progress,
        )  # fmt: skip
        facts = {"penalty": options.penalty, "steps": options.steps, "rate": options.rate, **gates.data}
        return Order(name, _rising(model, gates.log_alpha), gates.log_alpha, gates.open, facts)
    if name in ("mean-ablation", "zero-ablation"):
        removal = Removal(means if name == "mean-ablation" else None)
        change = measured(model, batch, metric, [[], *(removal.of([head]) for head in model.heads)], name, progress)
        cost = metric.worse(change[1:] - change[0]).mean(1)
        # By size: heads whose removal seems to help on a few texts do not help on others, and together they harm.
        return Order(name, _rising(model, np.abs(cost)), cost)
    if options.recompute:
        return _recomputed(model, batch, metric, means, options, progress)
    importance = head_importance(model, batch, metric)
    return Order(name, tuple(importance.order()), importance.normed)


def random_order(model: Model, seed: int) -> Order:
    """The heads shuffled."""
    place = np.random.default_rng(seed).permutation(len(model.heads)).astype(np.float64)
    return Order("random", _rising(model, place), place, facts={"seed": seed})


def _recomputed(
    model: Model, batch: Batch, metric: Metric, means: Any, options: PruneOptions, progress: Progress
) -> Order:
    """Michel's order where importance is asked again after each step of the curve, of the heads that are still there."""
    removal = Removal(None if options.removal == "zero" else means)
    gone: list[HeadId] = []
    score = np.zeros(len(model.heads))
    place = {head: i for i, head in enumerate(model.heads)}
    for step in range(options.points):
        importance = head_importance(model, batch, metric, edits=removal.of(sorted(gone)))
        left = [head for head in importance.order() if head not in set(gone)]
        for head in left:  # each head keeps the importance that it had when it went
            score[place[head]] = importance.normed[place[head]]
        gone += left[: round(len(model.heads) * (step + 1) / options.points) - len(gone)]
        progress.advance("importance", of=options.points)
    return Order("michel", tuple(gone), score, facts={"recomputed": options.points})


def _rising(model: Model, score: Array) -> tuple[HeadId, ...]:
    """The heads by rising score; model.heads stand by layer and head, and the sort is stable."""
    return tuple(model.heads[i] for i in np.argsort(score, kind="stable"))
