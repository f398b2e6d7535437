"""What removing heads changes: its mean over examples, whether it is certain, and whether enough examples are touched."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats as scipy_stats

from headatlas.mining.checks.records import NAN, RANDOM, Check, HeadVerdict, Outcome, RemovalEffect
from headatlas.mining.checks.tail import Tail
from headatlas.ops import stats
from headatlas.ops.types import Array

ROUNDING = 1e-5  # of the metric's size: what numbers change by when nothing does


def effect_of(drop: Array, scale: float, random: Tail | None, seed: int = 0) -> RemovalEffect:
    """The effect behind `drop` [example], how much the metric worsened, beside that of random heads.

    scale: the size of the metric; changes that rounding explains are none.
    """
    n, size = len(drop), ROUNDING * max(scale, 1.0)
    mean = float(drop.mean())
    known, bars = (NAN, NAN, NAN), (NAN, NAN, NAN)
    if random is not None:
        bar = random.size_at(RANDOM)
        known = (bar, random.median, random.p(abs(mean)))
        reach = math.exp(1.96 * random.error)
        bars = (bar / reach, bar * reach, random.ordinary(RANDOM))
    if np.abs(drop).max() <= size:
        return RemovalEffect(0.0, 0.0, 0.0, *known, NAN, n, False, *bars)
    column = drop[:, None]
    if bool(stats.too_few_events(np.where(np.abs(column) <= size, 0.0, column))[0]):
        return RemovalEffect(mean, NAN, NAN, *known, NAN, n, True, *bars)
    low, high = (float(end[0]) for end in stats.interval(column, seed=seed))
    p = float(scipy_stats.ttest_1samp(drop, 0.0).pvalue) if low < high else 0.0
    return RemovalEffect(mean, low, high, *known, p, n, False, *bars)


def check(found: HeadVerdict, smallest: float) -> Check:
    """Whether the metric certainly changes without the head, by enough to count."""
    effect = found.alone
    if effect.few:
        return Check("own effect", "does not apply", effect.effect, note="too few events")
    large = abs(effect.effect) >= smallest
    outcome: Outcome = "passed" if effect.certain and large else "weakened" if effect.certain else "failed"
    note = "smaller than counts" if effect.certain and not large else ""
    return Check("own effect", outcome, effect.effect, effect.low, effect.high, note)
