"""Does the verdict depend on how heads are removed? By nothing (zero), by their mean, by what they give on other prompts.

Zero ablation takes more than information away and can overstate what a head does (2604.14433); a mean leaves the head's bias in
place, other prompts leave all that does not depend on the words. Asked on the examples of the verdict, where all three share
one clean run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from headatlas.edits import Mean, OnHeads, Resample, Swap, Zero, collect
from headatlas.edits.collect import means
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import Removal
from headatlas.methods.sweeps.set_ablation import SetAblation, another, averages
from headatlas.mining.checks.judging import Bench
from headatlas.mining.checks.own_effect import effect_of
from headatlas.mining.checks.random_heads import scale_of
from headatlas.mining.checks.records import NAN, Check, RemovalEffect
from headatlas.ops.types import Array
from headatlas.progress import Progress

NAME = "removals"
KINDS = ("zero", "mean", "resample")
FREE = 8  # free heads that are ranked beside the observed ones, and say how much larger all effects of a removal are
FEWEST = 5  # heads whose order says something
DRAWS = 200  # of examples, for the interval of the rank agreement


def steps(observed: int) -> int:
    """How many heads are removed at most for so many observed ones, by every removal."""
    return len(KINDS) * (observed + FREE)


class Removals:
    """The three removals on the examples of a bench, for all detectors whose heads are removed there."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.ways = bench, three(bench.removal)

    @cached_property
    def _free(self) -> list[HeadId]:
        """Some free heads, first of those that the verdict measured."""
        heads, own = self.bench.controls.heads, self.bench.removal
        order = [heads[i] for i in np.random.default_rng(self.bench.seed).permutation(len(heads))]
        assert isinstance(own, SetAblation)
        return sorted(order, key=lambda head: not own.knows([head]))[:FREE]

    def check(self, heads: Sequence[HeadId], smallest: float, progress: Progress | None = None) -> dict[HeadId, Check]:
        """By observed head: whether the three removals decide alike, with the worst rank agreement of two of them.

        Ranks are those of the observed heads and of some free ones; the number is Spearman's.
        """
        bench, own = self.bench, self.bench.removal
        if len(self.ways) < 2 or not isinstance(own, SetAblation):
            none = Check(NAME, "does not apply", note="the verdict asks another question than a removal answers")
            return dict.fromkeys(heads, none)
        everything = [*dict.fromkeys([*heads, *self._free])]
        for way in self.ways.values():
            way.prepare([[head] for head in everything], progress)
        drops = {kind: np.stack([way.metric_drop([head]) for head in everything]) for kind, way in self.ways.items()}
        agreement = _agreement(drops, bench.seed)
        scale, bars = scale_of(own), _bars(drops, len(heads), own.kind, bench, smallest)
        return {
            head: _outcome(
                {kind: effect_of(drops[kind][i], scale, None, bench.seed) for kind in drops}, bars, agreement
            )
            for i, head in enumerate(heads)
        }


def three(removal: Removal) -> dict[str, SetAblation]:
    """The removals by name that act where `removal` does, itself among them; none where it is not one of the three.

    Other prompts are the counterfactual ones where there are some, else each example takes the next of its length.
    """
    if not isinstance(removal, SetAblation) or removal.kind not in KINDS:
        return {}
    at, model = removal.within, removal.model
    ways = {removal.kind: removal, "zero": removal.instead(lambda heads: Zero(heads, positions=at))}
    if "mean" not in ways:
        values = _means(removal)
        ways["mean"] = removal.instead(lambda heads: Mean(heads, values, positions=at))
    if "resample" not in ways:
        lengths = removal.batch.mask.sum(1)
        order = another([lengths], lambda i, j: bool(lengths[i] == lengths[j]))
        if bool((order >= 0).all()):
            every = OnHeads(model.heads)
            if at is None:
                found = {key: x[order] for key, x in collect(model, removal.batch, every).items()}
                ways["resample"] = removal.instead(lambda heads: Resample(heads, found))
            else:
                taken = {key: x[order] for key, x in collect(model, removal.batch, every, positions=at).items()}
                ways["resample"] = removal.instead(lambda heads: Swap(heads, taken, positions=at))
    return {kind: ways[kind] for kind in KINDS if kind in ways}


def _means(removal: SetAblation) -> Mapping[tuple[str, int], Tensor]:
    if removal.within is not None:
        return averages(removal.model, removal.batch, removal.within)
    _, found, _ = means(removal.model, removal.batch, OnHeads(removal.model.heads))
    return {key: value[0] for key, value in found.items()}


def _bars(drops: Mapping[str, Array], observed: int, own: str, bench: Bench, smallest: float) -> dict[str, float]:
    """What an effect must exceed under each removal: the verdict's bar, raised as all free heads' effects are."""
    tail = bench.controls.tail
    bar = tail.size_at(0.05) if tail is not None else 0.0
    sizes = {kind: np.abs(drop[observed:].mean(1)) for kind, drop in drops.items()}
    bars = {}
    for kind, size in sizes.items():
        both = (size > 0) & (sizes[own] > 0)
        larger = float(np.exp(np.median(np.log(size[both] / sizes[own][both])))) if both.any() else 1.0
        bars[kind] = max(smallest, bar * larger)
    return bars


def _outcome(
    effects: Mapping[str, RemovalEffect], bars: Mapping[str, float], agreement: tuple[float, float, float]
) -> Check:
    parts = {kind: (one.effect, one.low, one.high) for kind, one in effects.items()}
    if any(one.few for one in effects.values()):
        return Check(NAME, "does not apply", *agreement, "too few examples show an effect", parts)
    decided = {kind: one.sign * (abs(one.effect) > bars[kind]) for kind, one in effects.items()}
    if len(set(decided.values())) == 1:
        return Check(NAME, "passed", *agreement, "removals agree", parts)
    apart = [
        (a, b)
        for a, b in itertools.combinations(effects, 2)
        if decided[a] != decided[b] and (effects[a].high < effects[b].low or effects[b].high < effects[a].low)
    ]
    if not apart:
        return Check(NAME, "weakened", *agreement, "removals near the bar", parts)
    stands = ", ".join(kind for kind in effects if decided[kind])
    return Check(NAME, "failed", *agreement, f"depends on the removal: more than random heads by {stands} only", parts)


def _agreement(drops: Mapping[str, Array], seed: int) -> tuple[float, float, float]:
    """The least Spearman correlation of two removals' effects over heads, with a bootstrap interval over examples."""
    stacked = np.stack(list(drops.values()))  # [kind, head, example]
    live = (np.abs(stacked).max(2) > 0).any(0)
    stacked = stacked[:, live]
    if stacked.shape[1] < FEWEST:
        return NAN, NAN, NAN
    n = stacked.shape[2]
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS) / n
    found = _least_correlation(stacked.mean(2)[None])[0]
    drawn = _least_correlation(np.einsum("khe,de->dkh", stacked, weights))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    # Draws with examples twice order heads worse than all examples do, which may leave the value above the interval.
    low, high = min(low, found), max(high, found)
    return (float(found), float(low), float(high)) if not math.isnan(found) else (NAN, NAN, NAN)


def _least_correlation(effects: Array) -> Array:
    """[draw] of effects [draw, kind, head]."""
    ranks = rankdata(effects, axis=2)
    ranks -= ranks.mean(2, keepdims=True)
    size = np.sqrt((ranks**2).sum(2))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.einsum("dah,dbh->dab", ranks, ranks) / (size[:, :, None] * size[:, None, :])
    found: Array = between.min((1, 2))
    return found
