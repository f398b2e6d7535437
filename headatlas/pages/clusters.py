"""The several things that one head does: its events grouped by what they read, and each group called by a known kind that fits.

Grouped are the random events in which the head attends to more than resting places; what is compared is how an event's
attention beside resting places falls on the parts of the partition (`headatlas.pages.kinds`), which sum to one. The rule
for the number of groups stands at `behaviours`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headatlas.ops.types import Array
from headatlas.pages.kinds import PAIRS, PARTITION

ACTIVE = 0.2  # of an event's attention beside resting places: below it the head rests
MOST = 6  # groups
FEWEST = 40  # active events that are needed to tell groups apart
SMALLEST = 0.05  # share of the active events that a group must have
APART = 0.5  # of what two groups read must differ (total variation of their means)
COMPACT = 0.5  # mean silhouette
STABLE = 0.9  # adjusted Rand index between runs with other seeds
SEEDS = 5
FITS = 0.5  # of a group's attention that a kind must hold to lend its name, and
BEYOND = 0.25  # by how much that must exceed the head's chance level
UNNAMED = "unnamed"
_READS = tuple(name for name in PARTITION if name != "rest")
_JUDGED = 400  # events of which silhouettes are taken: they compare all pairs


@dataclass(frozen=True)
class Behaviour:
    """One group of a head's events.

    name: the known kind that fits, else "unnamed". share: of all sampled events. members: numbers of its events in the
    sample, in the order drawn. reads: part of the partition -> share of its attention beside resting places. kinds: known
    kind -> the same where a pair may be of several. spread: mean distance of its events from their mean (total variation).
    """

    name: str
    share: float
    members: NDArray[np.int64]
    reads: dict[str, float]
    kinds: dict[str, float]
    spread: float


@dataclass(frozen=True)
class Behaviours:
    """What one head does on a sample of events.

    resting: share of events in which it rests. groups: the largest first. silhouette, agreement: of the grouping chosen (mean
    silhouette; smallest adjusted Rand index between seeds), NaN for one group. note: why there is one group only, where that is so.
    """

    resting: float
    groups: tuple[Behaviour, ...]
    silhouette: float
    agreement: float
    note: str


def behaviours(pool: Array, rest: Array, chance: Array, *, seed: int = 0) -> Behaviours:
    """Group a head's events.

    pool [event, column]: attention by parts of the partition, then by kinds; rest [event]: of it, to resting places. chance
    [kind]: the head's chance level of each kind. The number of groups: of 2 to MOST, the one with the highest mean silhouette
    (k-means) among those whose silhouette is at least COMPACT, whose groups hold at least SMALLEST of the active events
    each, differ pairwise in at least APART of what they read, and come out alike with SEEDS seeds (adjusted Rand index at
    least STABLE); one group where there is none. Rousseeuw 1987; Hubert & Arabie 1985.
    """
    active = np.flatnonzero(1 - rest >= ACTIVE)
    resting = 1 - len(active) / max(len(rest), 1)
    if len(active) < FEWEST:
        note = f"{len(active)} active events in the sample are too few to tell groups apart ({FEWEST} are needed)"
        labels, silhouette, agreement = np.zeros(len(active), dtype=np.int64), np.nan, np.nan
    else:
        labels, silhouette, agreement = _grouped(_normed(pool[active, 1 : len(PARTITION)]), seed)
        note = "" if labels.any() else "no division into groups meets the rule"
    groups = [_behaviour(pool, rest, chance, active[labels == one]) for one in np.unique(labels)]
    return Behaviours(resting, tuple(sorted(groups, key=lambda group: -group.share)), silhouette, agreement, note)


def _normed(reads: Array) -> Array:
    """Rows that sum to one."""
    total = reads.sum(-1, keepdims=True)
    found: Array = reads / np.where(total > 0, total, 1.0)
    return found


def _grouped(reads: Array, seed: int) -> tuple[NDArray[np.int64], float, float]:
    """(group of each event, silhouette, agreement) by the rule of `behaviours`."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    def divided(k: int, state: int) -> NDArray[np.int64]:
        with warnings.catch_warnings():  # fewer distinct events than groups: told by the sizes of the groups
            warnings.simplefilter("ignore", ConvergenceWarning)
            found: NDArray[np.int64] = KMeans(k, n_init=4, random_state=state).fit_predict(reads).astype(np.int64)
        return found

    known: list[tuple[float, int, NDArray[np.int64]]] = []
    for k in range(2, MOST + 1):
        labels = divided(k, seed)
        sizes = np.bincount(labels, minlength=k)
        if sizes.min() < SMALLEST * len(reads) or _nearest(reads, labels) < APART:
            continue
        size = min(_JUDGED, len(reads))
        silhouette = float(silhouette_score(reads, labels, sample_size=size, random_state=seed))
        if silhouette >= COMPACT:
            known.append((silhouette, k, labels))
    for silhouette, k, labels in sorted(known, key=lambda one: -one[0]):
        others = [divided(k, seed + 1 + more) for more in range(SEEDS - 1)]
        agreement = min(float(adjusted_rand_score(labels, other)) for other in others)
        if agreement >= STABLE:
            return labels, silhouette, agreement
    return np.zeros(len(reads), dtype=np.int64), float("nan"), float("nan")


def _nearest(reads: Array, labels: NDArray[np.int64]) -> float:
    """The smallest total variation between the means of two groups."""
    means = np.stack([reads[labels == one].mean(0) for one in np.unique(labels)])
    if len(means) < labels.max() + 1 or len(means) < 2:
        return 0.0
    apart = np.abs(means[:, None] - means).sum(-1) / 2
    return float(apart[np.triu_indices(len(means), 1)].min())


def _behaviour(pool: Array, rest: Array, chance: Array, members: NDArray[np.int64]) -> Behaviour:
    """One group of events."""
    active = max(float((1 - rest[members]).sum()), 1e-12)
    reads = pool[members, 1 : len(PARTITION)].sum(0) / active
    kinds = pool[members, len(PARTITION) :].sum(0) / active
    normed = _normed(pool[members, 1 : len(PARTITION)])
    spread = float(np.abs(normed - normed.mean(0)).sum(-1).mean() / 2) if len(members) else float("nan")
    return Behaviour(
        name_of(kinds, chance), len(members) / max(len(rest), 1), members,
        dict(zip(_READS, map(float, reads), strict=True)), dict(zip(PAIRS, map(float, kinds), strict=True)), spread,
    )  # fmt: skip


def name_of(kinds: Array, chance: Array) -> str:
    """The known kind that holds the most of an attention, where that is FITS or more and BEYOND more than chance; else "unnamed"."""
    fits = np.where((kinds >= FITS) & (kinds - chance >= BEYOND), kinds, -1.0)
    return list(PAIRS)[int(fits.argmax())] if fits.max() > 0 else UNNAMED


def told(reads: dict[str, float], most: int = 3, least: float = 0.1) -> str:
    """What is read, in words: "previous 61%, near 20%"."""
    best = sorted(reads.items(), key=lambda pair: -pair[1])[:most]
    return ", ".join(f"{name.removeprefix('elsewhere: ')} {share:.0%}" for name, share in best if share >= least)
