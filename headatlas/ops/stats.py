"""Statistics over examples: means with bootstrap intervals, paired tests against a control, false discovery rate."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

Array = NDArray[np.float64]


def mean(values: Array) -> Array:
    """Mean over examples of [example, ...], leaving out NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result: Array = np.nanmean(values, axis=0)
    return result


def bootstrap(values: Array, *, seed: int = 0, draws: int = 1000, level: float = 0.95) -> tuple[Array, Array]:
    """Percentile bootstrap interval of the mean over examples of [example, ...]: (low, high). NaN examples are left out."""
    n = len(values)
    flat = np.asarray(values, dtype=np.float64).reshape(n, -1)
    present = ~np.isnan(flat)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ np.where(present, flat, 0.0)) / (weights @ present)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])


def paired_p(values: Array, control: Array) -> Array:
    """One-sided p that values exceed their paired control, [example, head] each -> [head].

    Paired t-test over examples (its p is not bounded below by the number of permutations, which a correction over
    hundreds of heads needs); a constant difference gives 0 or 1. NaN with fewer than three pairs.
    """
    difference = np.asarray(values - control, dtype=np.float64)
    count = (~np.isnan(difference)).sum(0)
    centre = mean(difference)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.nansum((difference - centre) ** 2, 0) / (count - 1))
        t = centre / (spread / np.sqrt(count))
        p: Array = scipy_stats.t.sf(t, np.maximum(count - 1, 1))
    exact = spread <= 1e-12 * np.maximum(1.0, np.abs(centre))
    p = np.where(exact, np.where(centre > 1e-12, 0.0, 1.0), p)
    return np.where(count >= 3, p, np.nan)


def false_discovery(p: Array) -> Array:
    """Benjamini-Hochberg adjusted p-values (q) over all finite entries of `p`; NaN stays NaN. Benjamini & Hochberg 1995."""
    flat = np.asarray(p, dtype=np.float64).ravel()
    known = np.flatnonzero(~np.isnan(flat))
    q = np.full(flat.shape, np.nan)
    if len(known):
        q[known] = scipy_stats.false_discovery_control(flat[known])
    return q.reshape(np.shape(p))
