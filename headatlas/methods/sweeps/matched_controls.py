"""The causal verdict: does removing the observed heads change what the task measures, more than removing others would?

Heads are mean-ablated (resample-ablated where the task has a counterfactual) alone and all together, on examples that were
not used to find them, and compared with random heads of the same layers that no detector of the task observed; as far as
there are enough of them, with heads in which no detector at all observed anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.ops.types import Array, LayerKey
from headatlas.progress import Progress, Silent
from headatlas.task import Metric

DRAWS = 20  # random sets per detector, and random single heads per observed head
REACH = 3  # a head of no known kind up to so many layers away serves rather than a nearer one of another kind
CHOICE = 4  # heads to draw from, so that random sets differ: where a layer has fewer, neighbouring layers help out


@dataclass(frozen=True)
class Effect:
    """How much the metric worsens when heads are removed (negative: it improves), with a 95% interval over examples.

    random_effect: 95th percentile of the size of the same effect for random heads of the same layers; p: their share with
    an effect at least as large.
    """

    effect: float
    low: float
    high: float
    random_effect: float
    random_median: float
    p: float
    smallest: float = 0.0

    @property
    def real(self) -> bool:
        """Whether the interval excludes 0 and the effect exceeds the 95th percentile of random heads and `smallest`."""
        return (self.low > 0 or self.high < 0) and abs(self.effect) > max(self.random_effect, self.smallest)


@dataclass(frozen=True)
class Verdict:
    """Verdict per head and the effects on `metric` behind it; `group`: that of the whole set, `examples`: how many it rests on."""

    verdicts: dict[HeadId, str]
    effects: dict[HeadId, Effect]
    group: Effect
    examples: int
    metric: Metric


class Removal(Protocol):
    """What a verdict asks: how much worse a metric is without a set of heads."""

    @property
    def model(self) -> Model: ...  # noqa: D102
    @property
    def metric(self) -> Metric: ...  # noqa: D102

    def metric_drop(self, heads: Iterable[HeadId]) -> Array:
        """How much the metric worsens per example, [example], when `heads` are removed."""


def judge(
    ablation: Removal,
    rivals: Removal,
    observed: Sequence[HeadId],
    excluded: Iterable[HeadId],
    *,
    assigned: Iterable[HeadId] = (),
    smallest: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verdict:
    """Verdicts for one detector's observed heads; random controls never contain a head of `excluded`.

    assigned: heads in which something else was observed; they serve as controls only where others are more than REACH
    layers away or too few, so that a control is no head of another kind that happens to matter here.
    Random heads are removed on the batch of `rivals`, half the examples: fewer examples make their effects scatter more and
    so the bar higher, at half the cost. smallest: the least effect that counts as real, in units of the metric.
    progress: moves on by one for each head and one for the set.
    """
    progress, steps = progress or Silent(), len(observed) + 1
    rng = np.random.default_rng(seed)
    free, avoided = sorted(set(ablation.model.heads) - set(excluded) - set(observed)), frozenset(assigned)
    singles = _pool(free, avoided, seed)
    effects = {}
    for head in observed:
        near = sorted(
            (other for other in singles if other.stack == head.stack), key=lambda other: _far(head, other, avoided)
        )
        effects[head] = _effect(
            ablation.metric_drop([head]), [rivals.metric_drop([other]) for other in near[:DRAWS]], seed, smallest
        )
        progress.advance("verdict", of=steps)
    sets = [matched(observed, free, rng, avoided, CHOICE) for _ in range(DRAWS)] if free else []
    group = _effect(ablation.metric_drop(observed), [rivals.metric_drop(draw) for draw in sets], seed, smallest)
    progress.advance("verdict", of=steps)
    verdicts = {}
    for head in observed:
        verdicts[head] = "causal" if effects[head].real else "group" if group.real and len(observed) > 1 else "refuted"
    return Verdict(verdicts, effects, group, len(ablation.metric_drop(observed)), ablation.metric)


def _far(head: HeadId, other: HeadId, avoided: frozenset[HeadId]) -> tuple[bool, int]:
    """How unlike a control is: heads to avoid, and those of distant layers, come after all others; sorts the nearest first."""
    distance = abs(other.layer - head.layer)
    return other in avoided or distance > REACH, distance


def _pool(free: Sequence[HeadId], avoided: frozenset[HeadId], seed: int, per_layer: int = 3) -> list[HeadId]:
    """A few free heads of each layer, the same for all detectors of a task, so that each is measured once."""
    rng = np.random.default_rng(seed)
    layers: dict[LayerKey, list[HeadId]] = {}
    for head in free:
        layers.setdefault((head.stack, head.layer), []).append(head)
    # Shallow models have few layers: take more heads of each, so that there are enough to compare with.
    take = max(per_layer, -(-2 * DRAWS // max(len(layers), 1)))
    mixed = [[group[i] for i in rng.permutation(len(group))] for group in layers.values()]
    return [head for group in mixed for head in sorted(group, key=lambda one: one in avoided)[:take]]


def matched(
    heads: Sequence[HeadId],
    free: Sequence[HeadId],
    rng: np.random.Generator,
    avoided: frozenset[HeadId] = frozenset(),
    choice: int = 1,
) -> frozenset[HeadId]:
    """As many random heads of the same layers; where a layer has fewer than `choice` free heads left, of the nearest layers.

    avoided: heads that are drawn only where there are not so many others within REACH layers.
    """
    left = set(free)
    drawn: set[HeadId] = set()
    for head in heads:
        candidates = sorted(other for other in left if other.stack == head.stack)
        if not candidates:
            break
        far = {other: _far(head, other, avoided) for other in candidates}
        reach = sorted(far.values())[:choice][-1]
        near = [other for other in candidates if far[other] <= reach]
        picked = near[int(rng.integers(len(near)))]
        drawn.add(picked)
        left.discard(picked)
    return frozenset(drawn)


def _effect(change: Array, random: Sequence[Array], seed: int, smallest: float) -> Effect:
    low, high = stats.interval(change[:, None], seed=seed)
    sizes = np.array([abs(draw.mean()) for draw in random])
    mean = float(change.mean())
    threshold = float(np.quantile(sizes, 0.95)) if len(sizes) else float("nan")
    median = float(np.median(sizes)) if len(sizes) else float("nan")
    p = (1 + int((sizes >= abs(mean)).sum())) / (1 + len(sizes))
    return Effect(mean, float(low[0]), float(high[0]), threshold, median, p, smallest)
