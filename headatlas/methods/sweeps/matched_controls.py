"""What a removal of heads is, and random heads to remove in place of others: of the same layers, or of the nearest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Metric


class Removal(Protocol):
    """What a verdict asks: how much worse a metric is without a set of heads."""

    @property
    def model(self) -> Model: ...  # noqa: D102
    @property
    def metric(self) -> Metric: ...  # noqa: D102

    def metric_drop(self, heads: Iterable[HeadId]) -> Array:
        """How much the metric worsens per example, [example], when `heads` are removed."""


def matched(heads: Sequence[HeadId], free: Sequence[HeadId], rng: np.random.Generator) -> frozenset[HeadId]:
    """As many random heads of the same layers; where a layer has no free head left, of the nearest layers that have."""
    left = set(free)
    drawn: set[HeadId] = set()
    for head in heads:
        candidates = sorted(other for other in left if other.stack == head.stack)
        if not candidates:
            break
        reach = min(abs(other.layer - head.layer) for other in candidates)
        near = [other for other in candidates if abs(other.layer - head.layer) == reach]
        picked = near[int(rng.integers(len(near)))]
        drawn.add(picked)
        left.discard(picked)
    return frozenset(drawn)
