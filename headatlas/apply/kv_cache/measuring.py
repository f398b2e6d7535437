"""What caches that hold less cost: needles that are found, and the loss of prose that goes on. Each text is read once and evicted in several ways.

The text is read in full; then the cache is cut down to what a plan keeps; only then comes what is asked (a question, or more of the
text), token by token as decoding would, so that nothing of what is asked was known when the cache was cut. Plans are compared on the same
texts: differences are paired.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.kv_cache.plan import CachePlan, as_recent, everything, evicted, shuffled
from headatlas.choices import demand_needle
from headatlas.errors import BadInput, UnfitTask
from headatlas.methods.sweeps import checkpoint
from headatlas.model import Model
from headatlas.model.holding.cache import HeadwiseCache, cache_shapes, in_force
from headatlas.model.holding.own import read_text
from headatlas.model.identity import identity_of
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.store import short_id, write_json
from headatlas.task import HELD_OUT, Batch, edges, find_task
from headatlas.tasks._passages import passages
from headatlas.version import __version__

FULL = "everything"
TAIL = 128  # tokens of prose whose loss is taken
NEWLINE = "\n"


@dataclass(frozen=True)
class CacheCost:
    """One plan's results. share: of the full cache's bytes, by plan; held: bytes of its tensors beside those of the full cache.

    found [trial]: whether all tokens of the needle's answer are the likeliest ones; log_probability [trial]: of the answer, in nats; loss [passage]:
    in nats a token.
    """

    share: float
    held: float
    found: Array
    log_probability: Array
    loss: Array


@dataclass(frozen=True)
class CacheComparison:
    """Plans on the same texts. costs: name -> results, `everything` (the model's own cache) among them. facts: how they were measured."""

    costs: Mapping[str, CacheCost]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each plan: shares, accuracy with its interval, differences from the full cache with paired intervals."""
        full = self.costs[FULL]
        found = []
        for name, cost in self.costs.items():
            row: dict[str, Any] = {"plan": name, "share": cost.share, "held": cost.held}
            if len(cost.found):
                right = int(cost.found.sum())
                row["accuracy"] = right / len(cost.found)
                row["accuracy_low"], row["accuracy_high"] = stats.share_interval(right, len(cost.found))
                row |= _named("accuracy_change", paired_shares(cost.found, full.found))
                row |= _named("log_probability_change", _paired(cost.log_probability - full.log_probability))
            if len(cost.loss):
                row |= _named("loss_change", _paired((cost.loss - full.loss) / full.loss.mean()))
            found.append(row)
        return found

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {**self.facts, "plans": self.rows}

    def __repr__(self) -> str:
        return f"CacheComparison({', '.join(self.costs)}; {self.facts.get('task')}, {self.facts.get('n')} trials)"


def _named(name: str, value: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), value, strict=True))


def _paired(change: Array) -> tuple[float, float, float]:
    """Mean of differences on the same texts, with its 95% interval."""
    low, high = stats.interval(change)
    return float(change.mean()), float(low), float(high)


def paired_shares(one: Array, other: Array) -> tuple[float, float, float]:
    """How much larger the share of `one` [trial] bool is than that of `other` on the same trials, with its 95% interval.

    By Newcombe's hybrid score method for paired proportions (Newcombe 1998, Statistics in Medicine 17, method 10), which holds
    where hardly any trial changes and an interval by standard errors would have no width.
    """
    a, b = one.astype(bool), other.astype(bool)
    n, p, q = len(a), float(a.mean()), float(b.mean())
    (p_low, p_high), (q_low, q_high) = (stats.share_interval(int(x.sum()), n) for x in (a, b))
    both, only, rival, neither = (int(x.sum()) for x in (a & b, a & ~b, b & ~a, ~a & ~b))
    margins = (both + only) * (rival + neither) * (both + rival) * (only + neither)
    cross = both * neither - only * rival
    phi = 0.0 if not margins else (max(cross - n / 2, 0.0) if cross > 0 else cross) / margins**0.5
    below = (p - p_low) ** 2 - 2 * phi * (p - p_low) * (q_high - q) + (q_high - q) ** 2
    above = (p_high - p) ** 2 - 2 * phi * (p_high - p) * (q - q_low) + (q - q_low) ** 2
    return p - q, p - q - max(below, 0.0) ** 0.5, p - q + max(above, 0.0) ** 0.5


@torch.no_grad()
def compare_cache_plans(
    model: Model,
    plans: Mapping[str, CachePlan],
    *,
    task: str = "needle-2048",
    n: int = 100,
    n_prose: int = 6,
    draws: int = 0,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> CacheComparison:
    """Needles found and prose's loss under several plans, on the same texts, each read once.

    task: one of the needles, whose length prose has too; its held-out half is taken, other cities and answers than plans are made by.
    n: needles, 0 for none. n_prose: passages, 0 for none. draws: for each plan also that many with random groups, and one by
    which all keep recent tokens, of no fewer bytes. out: a new JSON file for the result; interrupted work goes on from beside it.
    Raises BadInput, UnfitTask, UnsupportedModel, StoreError.
    """
    demand_measurable(plans, task, n, n_prose)
    task = task if task.endswith(HELD_OUT) else task + HELD_OUT
    progress = progress or Silent()
    batch = find_task(task)(model.tokenizer, max(n, 1), seed)
    length = batch.tokens.shape[1]
    texts = prose_of(model, length, n_prose, seed)
    beside = {
        one: rival for name, plan in plans.items() for one, rival in rivals(name, plan, length, draws, seed).items()
    }
    every = {FULL: everything(cache_shapes(model)), **plans, **beside}
    for plan in every.values():
        plan.demand_fit(model)
    facts = {
        "model": model.name, "weights": model.sha256(), "dtype": str(model.dtype).removeprefix("torch."), "task": task, "n": n,
        "n_prose": n_prose, "tokens": length, "seed": seed, "draws": draws,
    }  # fmt: skip
    told = {
        **facts,
        **identity_of(model),
        "plans": {name: plan.rows for name, plan in every.items()},
        "headatlas": __version__,
    }
    identity = {"id": short_id(told), **told}
    with checkpoint.file(out, identity) as store:

        def kept(name: str, measure: Callable[[], Array]) -> Array:
            found = store.get(name)
            if found is None:
                found = measure()
                store.put(name, found)
            progress.advance("texts", of=n + n_prose)
            return found

        needles = [kept(f"needle-{i}", functools.partial(_needle_row, model, every, batch, i)) for i in range(n)]
        prose = [kept(f"prose-{i}", functools.partial(_prose_row, model, every, text)) for i, text in enumerate(texts)]
        by_needle = (
            np.stack(needles) if needles else np.empty((0, len(every), 3))
        )  # [trial, plan, found and log-probability and bytes]
        by_prose = np.stack(prose) if prose else np.empty((0, len(every), 2))  # [passage, plan, loss and bytes]
        held = np.concatenate([by_needle[..., -1], by_prose[..., -1]]).max(0)
        costs = {
            name: CacheCost(
                plan.share(length), float(held[i] / held[0]), by_needle[:, i, 0], by_needle[:, i, 1], by_prose[:, i, 0]
            )
            for i, (name, plan) in enumerate(every.items())
        }
        result = CacheComparison(costs, facts)
        if out is not None:
            write_json(Path(out), result.data)
    return result


def demand_measurable(plans: Mapping[str, CachePlan], task: str, n: int, n_prose: int) -> None:
    """Raise BadInput for what cannot be measured."""
    demand_needle(task)
    if FULL in plans:
        raise BadInput(f"No plan may be called '{FULL}'.", "It is the model's own cache, which is always measured.")
    if n < 0 or n_prose < 0 or not n + n_prose:
        raise BadInput(f"{n} needles and {n_prose} passages are nothing to measure on.", "Give one of either at least.")


def rivals(name: str, plan: CachePlan, n_tokens: int, draws: int, seed: int) -> dict[str, CachePlan]:
    """What a plan must beat, each within its bytes: `draws` plans with random groups, and one by which all groups keep recent tokens."""
    if not draws:
        return {}
    found = {f"{name}, random {draw + 1}": shuffled(plan, seed + draw) for draw in range(draws)}
    return {**found, f"{name}, recency": as_recent(plan, n_tokens)}


def _needle_row(model: Model, plans: Mapping[str, CachePlan], batch: Batch, trial: int) -> Array:
    """[plan, 3] for one needle: whether it is found, the answer's log-probability, bytes held."""
    context, rest, wanted = needle(model, batch, trial)
    past = read_text(model, context)
    rows = []
    for plan in plans.values():
        cache = evicted(plan, model, past)
        held = cache.n_bytes
        log_p, best = _scored(model, cache, rest)
        rows.append([float(best[wanted - 1].all()), float(log_p[wanted - 1].sum()), held])
    return np.asarray(rows, dtype=np.float64)


def _prose_row(model: Model, plans: Mapping[str, CachePlan], text: Tensor) -> Array:
    """[plan, 2] for one passage: loss in nats a token of its last TAIL tokens, bytes held."""
    past = read_text(model, text[:-TAIL])
    rows = []
    for plan in plans.values():
        cache = evicted(plan, model, past)
        held = cache.n_bytes
        rows.append([-float(_scored(model, cache, text[-TAIL:])[0].mean()), held])
    return np.asarray(rows, dtype=np.float64)


def _scored(model: Model, cache: HeadwiseCache, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """[pos - 1] the log-probability of each further token but the first, and whether it is the likeliest one."""
    ids = tokens[None].to(model.device)
    with in_force(model):  # that the plan fits was asked for once
        logits = model.hf(input_ids=ids, past_key_values=cache).logits[0, :-1].float()
    wanted = ids[0, 1:, None]
    log_p = logits.log_softmax(-1).gather(1, wanted)[:, 0]
    return log_p.cpu(), (logits.argmax(-1) == wanted[:, 0]).cpu()


def needle(model: Model, batch: Batch, example: int) -> tuple[Tensor, Tensor, Tensor]:
    """(the text [pos], what is asked of it with its answer [pos], places of the answer's tokens in that)."""
    row = batch.tokens[example][batch.mask[example]]
    offset = int(batch.mask[example].long().argmax())
    asked = batch.positions["asked"][example]
    begin = int(asked[asked >= 0].min()) - offset
    while begin > 1 and NEWLINE not in model.tokenizer.decode([int(row[begin])]):
        begin -= 1
    answer = batch.positions["answer"][example]
    return row[:begin], row[begin:], answer[answer >= 0] - offset - begin


def prose_of(model: Model, length: int, n: int, seed: int) -> list[Tensor]:
    """`n` texts of bundled passages in random order, no passage in two of them, `length` tokens each. Raises UnfitTask."""
    front, _ = edges(model.tokenizer)
    passage = [text for several in passages().values() for text in several]
    ids = [
        one
        for i in np.random.default_rng(seed).permutation(len(passage))
        for one in model.tokenizer.encode(passage[i] + "\n\n")
    ]
    room = length - len(front)
    if len(ids) < n * room:
        raise UnfitTask(
            f"The bundled passages make {len(ids) // room} texts of {length} tokens, {n} are wanted (n_prose)."
        )
    return [torch.tensor([*front, *ids[i * room : (i + 1) * room]]) for i in range(n)]
