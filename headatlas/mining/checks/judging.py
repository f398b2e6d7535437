"""The tests of one detector's observed heads, each asked where the one before leaves something open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np

from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import Removal
from headatlas.mining.checks.beside_others import DRAWS, Together, together
from headatlas.mining.checks.own_effect import effect_of
from headatlas.mining.checks.random_heads import LOUDEST, SAMPLE, Controls, controls, prepare, scale_of
from headatlas.mining.checks.records import (
    RANDOM,
    DetectorVerdict,
    HeadVerdict,
    RemovalEffect,
    SetVerdict,
    exceeds,
    undecided,
    unproven,
)
from headatlas.ops.types import Array
from headatlas.progress import AtMost, Progress, Silent

# Examples that an effect is taken on, one step after the other, for as long as it touches few of them or is open; and those
# that it is taken on at last where it is close to what it must exceed.
STEPS, MOST = (16, 32, 64), 128


class Bench:
    """One way to remove heads, on the examples of the verdict, with its controls; shared by detectors that remove alike.

    more: (examples so far, examples wanted) -> the same removal on further examples, for heads whose effect is not clear yet;
    None where there are none.
    free: heads in which no detector of the task observed anything.
    """

    def __init__(
        self,
        removal: Removal,
        free: Iterable[HeadId],
        *,
        more: Callable[[int, int], Removal | None] = lambda have, wanted: None,
        seed: int = 0,
    ) -> None:
        self.removal, self.free, self.seed = removal, tuple(free), seed
        self.progress: Progress = Silent()
        self._more = more
        self._further: dict[int, Removal | None] = {}
        self._known: dict[HeadId, RemovalEffect] = {}
        self._against: dict[int, Controls] = {}

    @cached_property
    def controls(self) -> Controls:
        """What there is to compare with, measured once."""
        return controls(self.removal, self.free, self.progress)

    def alone(self, head: HeadId, smallest: float) -> RemovalEffect:
        """The effect of removing one head, on more examples where too few are touched, or others may well decide otherwise.

        Where the bar is within reach it is taken on as many examples, up to 64, so that it hangs on the draw no more than the
        effect does: it rests on forty heads, each of which is known that well.
        """
        if head not in self._known:
            drop, against = self.removal.metric_drop([head]), self.controls
            effect = self._effect(drop, against)
            for wanted in (*STEPS, MOST):
                close = undecided(effect, smallest)
                if not (close or (wanted <= STEPS[-1] and effect.few) or unproven(effect, smallest)):
                    break
                further = self._on_further(len(drop), wanted)
                if further is not None:
                    drop = np.concatenate([drop, further.metric_drop([head])])
                    against = self._on_as_many(min(wanted, STEPS[-1])) if close else against
                    effect = self._effect(drop, against)
            self._known[head] = effect
        return self._known[head]

    def leads(self, smallest: float) -> dict[HeadId, float]:
        """The effects of controls that stand out as a causal head does, the largest first."""
        tail, removal = self.controls.tail, self.removal
        bar = max(smallest, tail.size_at(RANDOM) if tail is not None else smallest)
        effects = {
            head: self._effect(removal.metric_drop([head]), self.controls)
            for head, size in self.controls.sizes.items()
            if size >= bar
        }
        found = {head: one.effect for head, one in effects.items() if exceeds(one, smallest)}
        return dict(sorted(found.items(), key=lambda pair: -abs(pair[1])))

    def _effect(self, drop: Array, against: Controls) -> RemovalEffect:
        return effect_of(drop, scale_of(self.removal), against.tail, self.seed)

    def _on_as_many(self, wanted: int) -> Controls:
        """The controls with those that were measured, or the loudest of many, measured on all further examples up to so many in all."""
        if wanted not in self._against:
            found = self.controls
            for further in (self._further[step] for step in sorted(self._further) if step <= wanted):
                found = found if further is None else found.on_further(further, self.progress)
            self._against[wanted] = found
        return self._against[wanted]

    def _on_further(self, have: int, wanted: int) -> Removal | None:
        if wanted not in self._further:
            self._further[wanted] = self._more(have, wanted) if have < wanted else None
        return self._further[wanted]


def judge(
    bench: Bench,
    observed: Sequence[HeadId],
    *,
    smallest: float = 0.0,
    first: bool = True,
    progress: Progress | None = None,
) -> DetectorVerdict:
    """What the tests say of one detector's observed heads; `settling.settled` makes verdicts of it.

    smallest: the least effect that counts, in units of the metric. first: whether the controls are still to be measured, as they
    are for the first detector of a task. progress: moves on by `removals` in all; steps that turned out
    not to be needed come last.
    """
    told, removal = AtMost(progress or Silent(), "verdict", removals(len(observed), first=first)), bench.removal
    prepare(removal, [[head] for head in observed], told)
    bench.progress = told
    alone = {}
    for head in observed:
        alone[head] = bench.alone(head, smallest)
        told.advance("verdict")
    causal = [head for head in observed if exceeds(alone[head], smallest)]
    idle = {head for head in observed if alone[head].null and _adds_nothing(removal, head, observed)}
    rest = [head for head in observed if head not in causal and head not in idle]
    whole = effect_of(removal.metric_drop(observed), scale_of(removal), None, bench.seed)

    def on_top_of(gone: Sequence[HeadId]) -> Together:
        return together(removal, rest, gone, bench.controls, smallest=smallest, seed=bench.seed, progress=told)

    by_itself = on_top_of([]) if len(rest) > 1 else None
    contexts = [one for one in (by_itself, on_top_of(causal) if rest and causal else None) if one is not None]
    heads = {}
    for head in observed:
        found = [context.members[head] for context in contexts if head in context.members]
        # Of both contexts the one in which it matters, or matters more surely.
        best = min(found, key=lambda one: (not exceeds(one, smallest), one.p), default=None)
        heads[head] = HeadVerdict(alone[head], best)
    told.ends()
    group = SetVerdict(
        whole, tuple(rest), by_itself.whole if by_itself is not None else None, by_itself.draws if by_itself else 0
    )
    have, metric = bench.controls, removal.metric
    leads = bench.leads(smallest)
    return DetectorVerdict(
        heads, group, smallest, len(have.heads), have.measured, whole.examples, metric.name, metric.unit, leads
    )


def removals(observed: int, *, first: bool = True) -> int:
    """How many steps `judge` reports at most for so many observed heads: sets that are removed (each alone, both contexts, and
    where it is the `first` of a task the controls, on further examples too), and each head's own effect once it is known, on
    however many examples.
    """
    controls = SAMPLE + LOUDEST * len(STEPS) if first else 0
    return 2 * observed + controls + 2 * (observed + 2 * DRAWS)


def _adds_nothing(removal: Removal, head: HeadId, observed: Sequence[HeadId]) -> bool:
    """Whether removing the head changes nothing either where all other observed heads are gone: it writes nothing."""
    part = removal.metric_drop(observed) - removal.metric_drop([one for one in observed if one != head])
    return effect_of(part, scale_of(removal), None).null
