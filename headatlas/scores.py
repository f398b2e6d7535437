"""What a detector found: a number per example and head, next to its chance level, and the statistics of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import stats as scipy_stats

from headatlas.heads import HeadId
from headatlas.ops import stats
from headatlas.ops.types import Array

LEVEL = 0.01  # false discovery rate among heads that a detector is said to observe


@dataclass(frozen=True)
class HeadScore:
    """One head's result: mean over examples with its 95% interval, chance level, p and q over all heads.

    p: of "the score exceeds chance by at most the minimum effect", from a paired t-test over examples.
    """

    head: HeadId
    score: float
    low: float
    high: float
    chance: float
    p: float
    q: float

    @property
    def excess(self) -> float:
        """Score above chance."""
        return self.score - self.chance


@dataclass(frozen=True)
class HeadScores:
    """values, control: [example, head] in the order of `heads`; NaN where undefined.

    minimum_effect: how far a score must exceed chance, in units of the score. It is part of the null hypothesis: a model of
    random weights has preferences too, small ones, which enough examples tell from chance with any certainty asked for.
    """

    heads: tuple[HeadId, ...]
    values: Array
    control: Array
    minimum_effect: float = 0.0

    def __repr__(self) -> str:
        return f"HeadScores({len(self.heads)} heads on {len(self.values)} examples; mean {float(np.nanmean(self.values)):.3g})"

    @cached_property
    def _summary(self) -> tuple[HeadScore, ...]:
        score, chance = stats.mean(self.values), stats.mean(self.control)
        low, high = stats.interval(self.values)
        p = stats.paired_p(self.values, self.control + self.minimum_effect)
        q = stats.false_discovery(p)
        columns = zip(self.heads, score, low, high, chance, p, q, strict=True)
        return tuple(HeadScore(head, *(float(x) for x in numbers)) for head, *numbers in columns)

    def summary(self) -> list[HeadScore]:
        """One line per head, in the order of `heads`."""
        return list(self._summary)

    def top(self, k: int) -> list[HeadScore]:
        """The `k` heads with the highest mean score."""
        known = [line for line in self._summary if not np.isnan(line.score)]
        return sorted(known, key=lambda line: -line.score)[:k]

    def observed(self, minimum_effect: float | None = None, *, level: float = LEVEL) -> list[HeadScore]:
        """Heads whose score exceeds chance by more than the minimum effect, at q < level, best first.

        minimum_effect: another than that of the scores.
        """
        if minimum_effect is not None and minimum_effect != self.minimum_effect:
            return replace(self, minimum_effect=minimum_effect).observed(level=level)
        return sorted((line for line in self._summary if line.q < level), key=lambda line: -line.score)

    @property
    def unclear(self) -> tuple[HeadId, ...]:
        """Heads that are not observed, and would be on twice as many examples that go on like these."""
        lines, n = self._summary, np.maximum((~np.isnan(self.values - self.control)).sum(0), 2)
        t = scipy_stats.t.isf([line.p for line in lines], n - 1)
        later = stats.false_discovery(scipy_stats.t.sf(np.sqrt(2) * t, 2 * n - 1))
        return tuple(line.head for line, q in zip(lines, later, strict=True) if q < LEVEL <= line.q)

    def grid(self, values: Array | None = None, stack: str | None = None) -> Array:
        """[layer, head] of the mean score (or of `values` per head), NaN where there is no such head."""
        return grid(self.heads, stats.mean(self.values) if values is None else values, stack)


def grid(heads: Sequence[HeadId], values: Array, stack: str | None = None) -> Array:
    """Numbers per head as [layer, head] of one stack (the first of `heads` unless named)."""
    stack = stack or heads[0].stack
    mine = [(head, value) for head, value in zip(heads, values, strict=True) if head.stack == stack]
    result = np.full((max(h.layer for h, _ in mine) + 1, max(h.head for h, _ in mine) + 1), np.nan)
    for head, value in mine:
        result[head.layer, head.head] = value
    return result
