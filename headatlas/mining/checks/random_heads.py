"""Is an effect more than that of random heads? The sizes of the effects of all free heads, of which the largest are measured.

Free are the heads in which nothing was observed. Where one gradient can rank them (attribution patching), those with the
largest estimates are measured and a few of the others; from these it is known how far estimates are off, and with it how many
of the others are as large as any size. A head that writes nothing is no control.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import Removal
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.mining.checks.own_effect import effect_of
from headatlas.mining.checks.records import RANDOM, Check, HeadVerdict, Outcome
from headatlas.mining.checks.tail import Tail
from headatlas.ops.types import Array
from headatlas.progress import Progress

LARGEST, OTHERS = 24, 10  # free heads that are measured: the largest by estimate, and some of all other sizes
SAMPLE = 64  # where nothing can be estimated
FEWEST = 8  # free heads of no known kind to compare with; else those of another task's kind serve too


@dataclass(frozen=True)
class Controls:
    """Free heads that write something, layer by layer, and how large the effects of single ones are.

    sizes: the mean effects that were measured, without sign. tail: None where there are too few.
    """

    heads: tuple[HeadId, ...]
    sizes: Mapping[HeadId, float]
    tail: Tail | None

    @property
    def measured(self) -> int:
        """Of how many heads the effect was measured."""
        return len(self.sizes)

    @property
    def quiet(self) -> tuple[HeadId, ...]:
        """Those that do not stand out themselves: a random set with one that does would show its effect, not that of a set."""
        bar = self.tail.size_at(RANDOM) if self.tail is not None else float("inf")
        return tuple(head for head in self.heads if self.sizes.get(head, 0.0) <= bar)


def controls(
    removal: Removal, free: Iterable[HeadId], assigned: Iterable[HeadId] = (), progress: Progress | None = None
) -> Controls:
    """The controls among `free` heads; those of `assigned`, in which something else was observed, only where others are few.

    progress: told of each removal, `SAMPLE` at most.
    """
    free, avoided = sorted(free), frozenset(assigned)
    others = [head for head in free if head not in avoided]
    found = _measured(removal, others, progress)
    return found if len(found.heads) >= FEWEST or len(others) == len(free) else _measured(removal, free, progress)


def _measured(removal: Removal, free: Sequence[HeadId], progress: Progress | None = None) -> Controls:
    estimates = None
    if len(free) > LARGEST + OTHERS:
        estimates = _estimates(removal, free)
    if estimates is None:
        # Spread over the model, the same for every seed.
        chosen = [free[i] for i in np.random.default_rng(len(free)).permutation(len(free))[:SAMPLE]]
        sizes = _sizes(removal, chosen, progress)
        live = [head for head, size in zip(chosen, sizes, strict=True) if size > 0]
        rest = tuple(sorted({*live, *(set(free) - set(chosen))}))
        known = {head: float(size) for head, size in zip(chosen, sizes, strict=True) if size > 0}
        return Controls(rest, known, Tail.of_sizes(sizes))
    # A head that writes nothing has no gradient: its estimate is 0 to the last bit.
    live = [i for i in np.argsort(-np.abs(estimates), kind="stable") if estimates[i] != 0.0]
    if len(live) <= LARGEST + OTHERS:
        return _measured(removal, [free[i] for i in sorted(live)], progress)
    spread = np.linspace(LARGEST, len(live) - 1, OTHERS).round().astype(int)
    places = np.array([*range(LARGEST), *dict.fromkeys(spread.tolist())])
    sizes = _sizes(removal, [free[live[i]] for i in places], progress)
    logs = np.log(np.abs(estimates[live]))
    some = sizes > 0
    slope, intercept, off = _line(logs[places][some], np.log(sizes[some]))
    predicted, spreads = intercept + slope * logs, np.full(len(live), off)
    predicted[places], spreads[places] = np.log(np.maximum(sizes, 1e-30)), 0.0
    measured = {free[live[i]]: float(size) for i, size in zip(places, sizes, strict=True)}
    return Controls(tuple(sorted(free[i] for i in live)), measured, Tail(predicted, spreads))


def _line(x: Array, y: Array) -> tuple[float, float, float]:
    """Slope and intercept of y about its least squares line over x, and how far y lies above it.

    Effects that all but cancel lie far below the line on a log scale, which says nothing of how many lie far above it.
    """
    slope, intercept = np.polyfit(x, y, 1)
    off = y - slope * x - intercept
    above = off[off > 0]
    return float(slope), float(intercept), max(float(np.sqrt(np.mean(above**2))) if len(above) else 0.0, 1e-3)


def _sizes(removal: Removal, heads: Sequence[HeadId], progress: Progress | None = None) -> Array:
    """[head] the size of each one's mean effect."""
    prepare(removal, [[head] for head in heads], progress)
    scale = scale_of(removal)
    return np.array([abs(effect_of(removal.metric_drop([head]), scale, None).effect) for head in heads])


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


def check(found: HeadVerdict) -> Check:
    """Whether the effect is more than that of random heads."""
    effect = found.alone
    if math.isnan(effect.random_effect):
        return Check("random heads", "does not apply", note="too few free heads to compare with")
    if effect.few or effect.null:
        return Check("random heads", "does not apply")
    outcome: Outcome = "passed" if effect.random_p <= RANDOM else "failed"
    return Check("random heads", outcome, effect.random_p, note="chance of a random head's effect to be as large")
