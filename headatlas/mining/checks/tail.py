"""How rare effects of a size are among random heads, from few measured sizes: a tail that is shrunk where it rests on few."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.stats import binom, norm, t

from headatlas.mining.checks.records import RANDOM
from headatlas.ops.types import Array

FEW = 40  # sizes below which their upper half has to serve as the tail
LEAST = 3  # sizes that make a tail
PRIOR = 2.0  # how many heads' worth it is known how fast sizes fall off
SPREAD = 1.5  # of log sizes, as single heads of SmolLM2 have it
RESAMPLED = 20  # times that examples are drawn anew, to see how much a size of the tail moves with them


@dataclass(frozen=True)
class Tail:
    """How rare random effects of a size are: log sizes of their effects, and by how much each may be off (0: measured).

    The largest 2 sqrt(n) sizes, or a tenth of them, are taken for a Pareto tail (Hill 1975); of fewer than FEW sizes the upper
    half for that of a lognormal distribution. What says how fast it falls is drawn to what is common by PRIOR observations, and
    p is the predictive probability, so that few heads give no small p. error: how far the log of its sizes is off for want of
    examples, as a standard deviation (`with_error`).
    """

    logs: Array
    spread: Array
    error: float = 0.0

    @classmethod
    def of(cls, drops: Sequence[Array]) -> Tail | None:
        """Of measured effects [example] each; None where fewer than LEAST of them change something."""
        live = sorted((drop for drop in drops if drop.mean() != 0), key=lambda drop: abs(float(drop.mean())))
        return with_error(np.array(live), cls.of_sizes) if live else None

    @classmethod
    def of_sizes(cls, sizes: Array) -> Tail | None:
        """Of measured sizes; None where fewer than LEAST are more than 0, which say nothing of how they scatter."""
        sizes = sizes[sizes > 0]
        return cls(np.log(sizes), np.zeros(len(sizes))) if len(sizes) >= LEAST else None

    def _above(self, log: float) -> tuple[float, float]:
        """Expected number of effects larger than exp(log), and the expected sum of their logs beyond it."""
        far = self.logs - log
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(self.spread > 0, far / self.spread, np.where(far > 0, np.inf, -np.inf))
        more = np.where(self.spread > 0, self.spread * norm.pdf(z), 0.0)
        over = norm.cdf(z)
        return float(over.sum()), float((np.where(over > 0, far * over, 0.0) + more).sum())

    @cached_property
    def _fit(self) -> tuple[float, float, float, float]:
        """(log size at which the tail begins, share of effects in it, how many observations say how fast it falls, its scale)."""
        n = len(self.logs)
        wanted = 0.5 * n if n < FEW else max(2.0 * math.sqrt(n), 0.1 * n)
        starts = np.unique(self.logs)[::-1]
        start = next((float(x) for x in starts if self._above(float(x))[0] >= wanted), float(starts[-1]))
        count, beyond = self._above(start)
        if n < FEW:
            over = np.maximum(self.logs - start, 0.0)  # half-normal: beyond the median as logs that are normal
            scale = math.sqrt((float((over**2).sum()) + PRIOR * SPREAD**2) / (count + PRIOR))
            scale *= math.sqrt(1 + math.pi / 2 / n)  # the median is known no better than that
        else:
            scale = (beyond + PRIOR) / (count + PRIOR)  # exponential: Hill's estimate of a Pareto tail
        return start, max(count, 0.5) / n, count + PRIOR, scale

    def p(self, size: float) -> float:
        """The chance that a random head's effect is at least this large."""
        if size <= 0:
            return 1.0
        start, share, weight, scale = self._fit
        far = math.log(size) - start
        if far <= 0:
            return max(share, self._above(math.log(size))[0] / len(self.logs))
        if len(self.logs) < FEW:
            return float(share * 2 * t.sf(far / scale, weight))
        return float(share * (1 + far / (weight * scale)) ** -weight)

    def size_at(self, p: float) -> float:
        """The size that random effects exceed with probability p; where the tail begins for p of more than its share."""
        start, share, weight, scale = self._fit
        if p >= share:
            return math.exp(start)
        if len(self.logs) < FEW:
            return math.exp(start + scale * float(t.isf(p / share / 2, weight)))
        return math.exp(start + weight * scale * ((share / p) ** (1 / weight) - 1))

    def ordinary(self, p: float) -> float:
        """The size up to which effects are not rarer than p; 0 where any may be.

        Of FEW sizes and more that is `size_at`. Fewer say less than `size_at` must assume: up to the size that so many of them
        reach as few samples of a share p would (one-sided binomial test at the level p), effects are common; between the two
        sizes these heads do not tell.
        """
        n = len(self.logs)
        if n >= FEW:
            return self.size_at(p)
        reached = next((k for k in range(1, n + 1) if binom.sf(k - 1, n, p) <= p), None)
        return min(math.exp(float(np.sort(self.logs)[n - reached])), self.size_at(p)) if reached is not None else 0.0

    @property
    def median(self) -> float:
        """The size that half of the effects stay below."""
        return math.exp(float(np.median(self.logs)))


def with_error(drops: Array, tail_of: Callable[[Array], Tail | None]) -> Tail | None:
    """The tail that `tail_of` makes of the sizes of mean effects, and how much it moves with the examples.

    drops: [head, example], NaN where a head was not measured on an example. Examples are drawn anew, with the same draws for
    all heads, since those share them.
    """
    known, n = ~np.isnan(drops), drops.shape[1]
    values = np.where(known, drops, 0.0)

    def on(weight: Array) -> Tail | None:
        return tail_of(np.abs((values * weight).sum(1)) / np.maximum((known * weight).sum(1), 1e-9))

    found = on(np.ones(n))
    if found is None or n < 2:
        return found
    tails = [on(weight) for weight in np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLED)]
    sizes = [math.log(one.size_at(RANDOM)) for one in tails if one is not None]
    return replace(found, error=float(np.std(sizes, ddof=1)) if len(sizes) > 1 else 0.0)
