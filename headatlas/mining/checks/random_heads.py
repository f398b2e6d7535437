"""Is an effect more than that of random heads? The sizes of the effects of all free heads, of which the largest are measured.

Free are the heads in which no installed detector of the task observes anything, whether or not it was asked for. Where one gradient can rank them (attribution patching), those with the
largest estimates are measured and a few of the others; from these it is known how far estimates are off, and with it how many
of the others are as large as any size. A head that writes nothing is no control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.stats import norm, theilslopes

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import Removal
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.mining.checks.own_effect import effect_of
from headatlas.mining.checks.records import RANDOM, Check, HeadVerdict, Outcome, unranked
from headatlas.mining.checks.tail import Tail, with_error
from headatlas.ops.types import Array
from headatlas.progress import Progress

LARGEST, OTHERS = 32, 8  # free heads that are measured: the largest by estimate, and some of all other sizes
SAMPLE = 64  # where nothing can be estimated
LOUDEST = LARGEST + OTHERS  # measured ones whose effects are taken on further examples too


@dataclass(frozen=True)
class Controls:
    """Free heads that write something, layer by layer, and how large the effects of single ones are.

    drops: [example] of each head that was measured, more for those that were measured on further examples. tail_of: [head]
    sizes of these effects -> the tail of all heads' sizes, None where there are too few.
    """

    heads: tuple[HeadId, ...]
    drops: Mapping[HeadId, Array]
    tail_of: Callable[[Array], Tail | None]

    @cached_property
    def sizes(self) -> dict[HeadId, float]:
        """The mean effects that were measured, without sign."""
        return {head: abs(float(drop.mean())) for head, drop in self.drops.items()}

    @cached_property
    def tail(self) -> Tail | None:
        """How rare sizes are among all heads; None where there are too few."""
        longest = max((len(drop) for drop in self.drops.values()), default=0)
        padded = [np.pad(drop, (0, longest - len(drop)), constant_values=np.nan) for drop in self.drops.values()]
        return with_error(np.array(padded), self.tail_of) if padded else None

    def on_further(self, further: Removal, progress: Progress | None = None) -> Controls:
        """The same with the loudest of the measured heads, LOUDEST at most, taken on the examples of `further` too."""
        loudest = sorted(self.drops, key=lambda head: -self.sizes[head])[:LOUDEST]
        more = dict(zip(loudest, _drops(further, loudest, progress), strict=True))
        joined = {head: np.concatenate([drop, more.get(head, drop[:0])]) for head, drop in self.drops.items()}
        return replace(self, drops=joined)

    @property
    def measured(self) -> int:
        """Of how many heads the effect was measured."""
        return len(self.drops)

    @property
    def quiet(self) -> tuple[HeadId, ...]:
        """Those that do not stand out themselves: a random set with one that does would show its effect, not that of a set."""
        bar = self.tail.size_at(RANDOM) if self.tail is not None else float("inf")
        return tuple(head for head in self.heads if self.sizes.get(head, 0.0) <= bar)


def controls(removal: Removal, free: Iterable[HeadId], progress: Progress | None = None) -> Controls:
    """The controls among `free` heads. progress: told of each removal, `SAMPLE` at most."""
    free, estimates = sorted(free), None
    if len(free) > LARGEST + OTHERS:
        estimates = _estimates(removal, free)
    if estimates is None:
        # Spread over the model, the same for every seed.
        chosen = [free[i] for i in np.random.default_rng(len(free)).permutation(len(free))[:SAMPLE]]
        drops = _drops(removal, chosen, progress)
        known = {head: drop for head, drop in zip(chosen, drops, strict=True) if drop.any()}
        rest = tuple(sorted({*known, *(set(free) - set(chosen))}))
        return Controls(rest, known, Tail.of_sizes)
    # A head that writes nothing has no gradient: its estimate is 0 to the last bit.
    live = [i for i in np.argsort(-np.abs(estimates), kind="stable") if estimates[i] != 0.0]
    if len(live) <= LARGEST + OTHERS:
        return controls(removal, [free[i] for i in live], progress)
    spread = np.linspace(LARGEST, len(live) - 1, OTHERS).round().astype(int)
    places = np.array([*range(LARGEST), *dict.fromkeys(spread.tolist())])
    logs, drops = np.log(np.abs(estimates[live])), _drops(removal, [free[live[i]] for i in places], progress)

    def tail_of(sizes: Array) -> Tail:
        some = sizes > 0
        slope, intercept, off = _line(logs[places][some], np.log(sizes[some]))
        predicted, spreads = intercept + slope * logs, np.full(len(live), off)
        predicted[places], spreads[places] = np.log(np.maximum(sizes, 1e-30)), 0.0
        return Tail(predicted, spreads)

    measured = {free[live[i]]: drop for i, drop in zip(places, drops, strict=True)}
    return Controls(tuple(sorted(free[i] for i in live)), measured, tail_of)


def _line(x: Array, y: Array) -> tuple[float, float, float]:
    """Slope and intercept of the line of y over x, and how far y lies above it (as a standard deviation).

    By medians (Theil-Sen): effects that all but cancel lie far below the line on a log scale, which says nothing of how many
    lie far above it. On SmolLM2 a least squares line gave a bar 20% above that of all heads measured, this one gives that bar
    within 7%.
    """
    slope = float(theilslopes(y, x)[0])
    intercept = float(np.median(y - slope * x))
    off = y - slope * x - intercept
    above = off[off > 0]
    return slope, intercept, max(float(np.median(above)) / float(norm.ppf(0.75)) if len(above) else 0.0, 1e-3)


def _drops(removal: Removal, heads: Sequence[HeadId], progress: Progress | None = None) -> Array:
    """[head, example] each one's effect, 0 where nothing but rounding changes."""
    prepare(removal, [[head] for head in heads], progress)
    scale, drops = scale_of(removal), np.array([removal.metric_drop([head]) for head in heads])
    idle = [effect_of(drop, scale, None).null for drop in drops]
    return np.where(np.array(idle, dtype=bool)[:, None], 0.0, drops) if len(drops) else drops


def prepare(
    removal: Removal,
    sets: Sequence[Iterable[HeadId]],
    progress: Progress | None = None,
    *,
    beside: Iterable[HeadId] = (),
) -> None:
    """Measure several sets side by side, where the removal can; `progress` counts them.

    beside: a set that all of these are like but for late layers.
    """
    if isinstance(removal, SetAblation):
        removal.prepare(sets, progress, beside=beside)


def scale_of(removal: Removal) -> float:
    """The size of the metric, by which rounding is told from effects."""
    clean = getattr(removal, "clean", None)
    return float(np.abs(clean).max()) if clean is not None else 1.0


def _estimates(removal: Removal, heads: Sequence[HeadId]) -> Array | None:
    """[head] first-order effects; None where no gradient can be taken."""
    if not isinstance(removal, SetAblation):
        return None
    try:
        return removal.estimates(heads)
    except (UnsupportedModel, BadInput):
        return None


def check(found: HeadVerdict, smallest: float) -> Check:
    """Whether the effect is more than that of random heads."""
    effect = found.alone
    if math.isnan(effect.random_effect):
        return Check("random heads", "does not apply", note="too few free heads to compare with")
    if effect.few or effect.null:
        return Check("random heads", "does not apply")
    if unranked(effect, smallest):
        return Check("random heads", "does not apply", effect.random_p, note="too few free heads to say how rare it is")
    outcome: Outcome = "passed" if effect.random_p <= RANDOM else "failed"
    return Check("random heads", outcome, effect.random_p, note="chance of a random head's effect to be as large")
