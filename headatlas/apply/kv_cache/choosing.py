"""Plans by name: which groups keep the whole text, by what heads do, by what is learned, or by chance."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headatlas.apply.kv_cache.gates import CacheGateOptions, learned_gates
from headatlas.apply.kv_cache.plan import CachePlan, groups_of, plan_of, widest, within_budget
from headatlas.apply.kv_cache.recall import Asked, asked
from headatlas.apply.kv_cache.spans import chosen_spans, key_worth
from headatlas.choices import CACHE_PLAN, demand_needle
from headatlas.detectors.retrieval import retrieval
from headatlas.edits.collect import pieces
from headatlas.errors import BadInput
from headatlas.methods.protected_groups import Group, protected_groups
from headatlas.model import LayerView, Model
from headatlas.model.given import demand_numbers
from headatlas.model.holding.cache import cache_shapes
from headatlas.model.holding.span import LayerShape, Span
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import find_task


@dataclass(frozen=True)
class CacheOptions:
    """How a plan is made.

    sinks, recent, compensate: what groups keep that do not keep everything (`Span`). n: texts that heads are scored or gates
    learned on. task: which needles those are. steps, rate, price, keeps, settling: of gates (`CacheGateOptions`). seed: of texts, learning and chance.
    Raises BadInput.
    """

    sinks: int = 4
    recent: int = 128
    compensate: bool = False
    n: int = 16
    task: str = "needle-1024"
    steps: int = 200
    rate: float = 0.02
    price: float = 1.0
    keeps: str = "answer"
    settling: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        demand_numbers(self)
        _ = self.span, self.gates
        if self.n < 2:
            raise BadInput(f"{self.n} texts are too few to choose by.", "Give 2 or more.")
        demand_needle(self.task)

    @property
    def span(self) -> Span:
        """What groups keep that do not keep everything."""
        return Span(self.sinks, self.recent, 0.0, self.compensate)

    @property
    def gates(self) -> CacheGateOptions:
        """How gates are learned."""
        return CacheGateOptions(self.steps, self.rate, self.price, self.keeps, self.settling)


@dataclass(frozen=True)
class Ranking:
    """Groups, best first, with what they were ranked by. low, high: 95% interval of that, where there is one."""

    order: tuple[Group, ...]
    score: Mapping[Group, float]
    low: Mapping[Group, float]
    high: Mapping[Group, float]


Budget = Callable[[Sequence[Group]], tuple[Group, ...]]  # a ranking -> those of it that fit


def plan_cache(
    model: Model,
    by: str = "gates",
    *,
    keep: float = 0.3,
    tokens: int = 4096,
    options: CacheOptions | None = None,
    progress: Progress | None = None,
) -> CachePlan:
    """Which groups keep the whole text, so that the cache of a text of `tokens` tokens takes `keep` times the full one's bytes.

    by: "razor" (echo and induction heads), "retrieval" (heads that copy a needle's answer, by the lower end of the interval), "gates"
    (learned, DuoAttention), "spans" (a span for each group by what its keys are worth, MoA), "recency" (none: all groups
    keep first and recent tokens, as many as fit), "random". Raises BadInput, UnfitTask, UnsupportedModel.
    """
    options, progress = options or CacheOptions(), progress or Silent()
    CACHE_PLAN.demand(by)
    if tokens < 1:
        raise BadInput(f"A text of {tokens} tokens has no cache.", "Give 1 or more.")
    shapes = cache_shapes(model)
    facts = {"keep": keep, "n_tokens": tokens, "seed": options.seed, "n": options.n, "task": options.task}
    name, weights = model.name, model.sha256()
    if by == "spans":
        within_budget(shapes, (), Span(options.sinks, 1), keep=keep, n_tokens=tokens)  # before what takes time
        worth = key_worth(model, shapes, _texts(model, options), progress)
        found = chosen_spans(shapes, _lengthened(worth, tokens), keep=keep, n_tokens=tokens, sinks=options.sinks)
        return CachePlan(shapes, found, by, model=name, weights=weights, facts=facts)
    if by == "recency":
        span = widest(shapes, options.span, keep=keep, n_tokens=tokens)
        return plan_of(shapes, (), span, method=by, model=name, weights=weights, facts=facts)
    budget = functools.partial(within_budget, shapes, span=options.span, keep=keep, n_tokens=tokens)
    budget(())  # before what takes time
    ranking = METHODS[by](model, shapes, options, budget, progress)
    whole = budget(ranking.order)
    if ranking.low:
        facts |= {
            "intervals": {str(g): [ranking.low[g], ranking.high[g]] for g in ranking.order},
            "unsure": _unsure(ranking, whole),
        }
    return plan_of(
        shapes, whole, options.span, method=by, scores=ranking.score, model=name, weights=weights, facts=facts
    )


def _texts(model: Model, options: CacheOptions) -> list[Asked]:
    return asked(model, find_task(options.task)(model.tokenizer, options.n, options.seed), options.n)


def _lengthened(worth: Sequence[Any], n_tokens: int) -> list[Any]:
    """Worth by distance for longer texts than were measured: what lies farther than any of them had counts as their farthest half."""
    found = []
    for one in worth:
        length = one.shape[1]
        if length >= n_tokens:
            found.append(one)
            continue
        grown = np.zeros((len(one), n_tokens))
        grown[:, :length] = one
        # A key that is worth something at a distance beyond the middle is so wherever it stands: it was put there by chance.
        far = one[:, length // 2 :].sum(1)
        grown[:, length:] = far[:, None] / max(n_tokens - length, 1)
        found.append(grown)
    return found


def _unsure(ranking: Ranking, whole: Sequence[Group]) -> list[str]:
    """Groups on either side of the cut whose intervals reach over it."""
    chosen = set(whole)
    if not chosen or len(chosen) == len(ranking.order):
        return []
    cut = min(ranking.score[group] for group in chosen)
    return [
        str(group) for group in ranking.order
        if (ranking.low[group] < cut and group in chosen) or (ranking.high[group] > cut and group not in chosen)
    ]  # fmt: skip


def _by_razor(
    model: Model, shapes: Sequence[LayerShape], options: CacheOptions, budget: Budget, progress: Progress
) -> Ranking:
    """Echo's best 1%, then all by induction, as far as the budget goes."""
    found = protected_groups(model, n=max(options.n // 2, 1), seed=options.seed)
    order = [*found.by_echo]
    order += [found.groups[i] for i in np.argsort(-found.induction, kind="stable") if found.groups[i] not in order]
    return Ranking(tuple(order), dict(zip(found.groups, map(float, found.induction), strict=True)), {}, {})


@torch.no_grad()
def _by_retrieval(
    model: Model, shapes: Sequence[LayerShape], options: CacheOptions, budget: Budget, progress: Progress
) -> Ranking:
    """Groups by the retrieval score of their best head, by the lower end of its interval, then by its mean."""
    batch = find_task(options.task)(model.tokenizer, options.n, options.seed)
    found: dict[Group, list[np.ndarray[Any, Any]]] = {group: [] for group in groups_of(shapes)}
    for part in pieces(batch):

        def watch(layer: LayerView, part: Any = part) -> None:
            scores = retrieval.score(layer, part).double().cpu().numpy()  # [example, head]
            by_group = scores.reshape(len(scores), layer.attention.n_groups, -1)
            for group in range(by_group.shape[1]):
                found[Group(layer.index, group)].append(by_group[:, group])

        model.forward(part, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
        progress.advance("retrieval", len(part), of=len(batch))
    score, low, high = {}, {}, {}
    for group, several in found.items():
        by_head = np.concatenate(several)
        best = by_head[:, int(np.nanmean(by_head, 0).argmax())]
        ends = np.nan_to_num(stats.interval(best))  # too few events to tell: nothing is sure
        score[group], low[group], high[group] = float(np.nanmean(best)), float(ends[0]), float(ends[1])
    order = sorted(score, key=lambda group: (-low[group], -score[group], group))
    return Ranking(tuple(order), score, low, high)


def _by_gates(
    model: Model, shapes: Sequence[LayerShape], options: CacheOptions, budget: Budget, progress: Progress
) -> Ranking:
    """Groups by learned gates."""
    texts = _texts(model, options)

    def chosen(gates: list[Array]) -> list[Array]:
        taken = set(budget(_ranked(_by_group(gates))))
        return [np.array([float(Group(layer, i) in taken) for i in range(len(row))]) for layer, row in enumerate(gates)]

    gates, _ = learned_gates(
        model, shapes, texts, options.span, options=options.gates, chosen=chosen, seed=options.seed, progress=progress
    )
    score = _by_group(gates)
    return Ranking(_ranked(score), score, {}, {})


def _by_group(gates: Sequence[Array]) -> dict[Group, float]:
    return {Group(layer, i): float(value) for layer, row in enumerate(gates) for i, value in enumerate(row)}


def _ranked(score: Mapping[Group, float]) -> tuple[Group, ...]:
    """Groups, the highest scores first."""
    return tuple(sorted(score, key=lambda group: (-score[group], group)))


def _by_chance(
    model: Model, shapes: Sequence[LayerShape], options: CacheOptions, budget: Budget, progress: Progress
) -> Ranking:
    """Groups in random order."""
    groups = groups_of(shapes)
    order = tuple(groups[i] for i in np.random.default_rng(options.seed).permutation(len(groups)))
    return Ranking(order, {}, {}, {})


METHODS: Mapping[str, Callable[[Model, Sequence[LayerShape], CacheOptions, Budget, Progress], Ranking]] = {
    "razor": _by_razor,
    "retrieval": _by_retrieval,
    "gates": _by_gates,
    "random": _by_chance,
}
