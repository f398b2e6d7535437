"""Statistics over examples: means with intervals, paired tests against a control, false discovery rate."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

Array = NDArray[np.float64]

STUDENTISED = 8  # examples from which the studentised bootstrap is taken rather than Student's t
FARTHEST = 4.0  # times Student's reach that an end of an interval may lie from the mean
EVENTS = 5  # examples that must differ from the rest, where the rest are all the same
_COLUMNS = 2000  # means resampled at once


def mean(values: Array) -> Array:
    """Mean over examples of [example, ...], leaving out NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result: Array = np.nanmean(values, axis=0)
    return result


def interval(values: Array, *, seed: int = 0, draws: int = 1000, level: float = 0.95) -> tuple[Array, Array]:
    """Interval of the mean over examples of [example, ...]: (low, high). NaN examples are left out.

    Studentised bootstrap, which follows skewed values (Efron & Tibshirani 1993, section 12.5); Student's t for fewer than
    STUDENTISED examples, and where so few differ from the rest that resampling says nothing. An end lies at most FARTHEST times
    Student's reach away. One number for all examples is
    its own interval; NaN with fewer than two examples. How often it covers the truth: docs/calibration.md.
    """
    n = len(values)
    flat = np.asarray(values, dtype=np.float64).reshape(n, -1)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    pieces = [flat[:, i : i + _COLUMNS] for i in range(0, flat.shape[1], _COLUMNS)]
    ends = [_interval(piece, weights, (1 + level) / 2) for piece in pieces] or [np.empty((2, 0))]
    low, high = np.concatenate(ends, axis=1)
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])


def share_interval(part: int, whole: int) -> tuple[float, float]:
    """95% interval of a share of `part` in `whole`, 1 or more (Wilson 1927)."""
    found = scipy_stats.binomtest(part, whole).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def interval_of(values: Array, unit: str = "") -> tuple[float, float]:
    """95% interval of the mean of one metric's values [example]; of shares it stays within 0 and 1.

    Of examples that are right or wrong, each 1 or 0, it is Wilson's: where all are alike, they are not all that there are.
    """
    present = values[~np.isnan(values)]
    if unit == "share" and len(present) and np.isin(present, (0.0, 1.0)).all():
        return share_interval(int(present.sum()), len(present))
    low, high = (float(end[0]) for end in interval(values[:, None]))
    return (max(low, 0.0), min(high, 1.0)) if unit == "share" else (low, high)


def _interval(x: Array, weights: Array, upper: float) -> Array:
    """[low or high, column] of x [example, column]; weights [draw, example]: how often a draw has each example."""
    present = ~np.isnan(x)
    count = present.sum(0)
    centre = mean(x)
    off = np.where(present, x - centre, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((off**2).sum(0) / (count - 1))
        error = spread / np.sqrt(count)
        reach = scipy_stats.t.ppf(upper, np.maximum(count - 1, 1)) * error
        ends = np.stack([centre - reach, centre + reach])
        resampled = (count >= STUDENTISED) & ~too_few_events(x) & (spread > 0)
        if resampled.any():
            off, present = off[:, resampled], present[:, resampled]
            size = weights @ present
            shift = weights @ off / size  # of a draw's mean from the mean of all
            wide = np.sqrt(np.maximum(weights @ off**2 / size - shift**2, 0.0) / (size - 1))
            t = np.quantile(shift / wide, [upper, 1 - upper], axis=0, method="nearest")  # infinite for one value
            # A draw without the one example that stands apart has next to no spread, and its t no bound: what lies
            # farther off than FARTHEST times Student's reach says nothing about the mean.
            within = FARTHEST * reach[resampled]
            ends[:, resampled] = centre[resampled] + np.clip(-t * error[resampled], -within, within)
    same = (spread <= 1e-12 * np.maximum(1.0, np.abs(centre))) & (count > 1)
    found: Array = np.where(same, centre, ends)
    return found


def too_few_events(values: Array) -> NDArray[np.bool_]:
    """[...] whether one to four examples of [example, ...] differ from the rest, too few to say how their mean scatters.

    The rest are those, at least two, that share the most frequent number; NaN examples are left out.
    """
    flat = np.sort(np.asarray(values, dtype=np.float64).reshape(len(values), -1), axis=0)  # NaN last
    known = (~np.isnan(flat)).sum(0)
    scale = np.nanmax(np.abs(flat), axis=0, initial=0.0)
    run, longest = np.ones(flat.shape[1], int), np.minimum(known, 1)
    for before, after in itertools.pairwise(flat):
        run = np.where(after - before <= 1e-9 * scale, run + 1, 1)
        longest = np.maximum(longest, np.where(np.isnan(after), 0, run))
    events = known - longest
    return np.asarray(((longest > 1) & (events > 0) & (events < EVENTS)).reshape(values.shape[1:]))


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
