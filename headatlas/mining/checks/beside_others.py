"""Heads that matter together: what changes without those that are not causal alone, and by how much each adds to it.

Backup heads hide each other: without one of them the others do its work. They show once all are gone, and each by what leaving
it out of the set changes. What a causal head hides shows once that head is gone too: the set is removed on its own, and on
top of the heads that are causal alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import Removal
from headatlas.mining.checks.own_effect import effect_of
from headatlas.mining.checks.random_heads import Controls, prepare, scale_of
from headatlas.mining.checks.records import RANDOM, Check, HeadVerdict, Outcome, RemovalEffect, exceeds, unranked
from headatlas.mining.checks.tail import FEW, Tail
from headatlas.ops.types import Array
from headatlas.progress import Progress

DRAWS = 10  # random sets, and random heads on top of a set
MANY = 40  # where so few do not say how rare an effect is, in models whose few free heads make it cheap


@dataclass(frozen=True)
class Together:
    """What heads do together on top of others that are gone, and what each adds to it.

    members: by head, empty where the set as a whole does nothing that a random one would not.
    """

    whole: RemovalEffect
    members: Mapping[HeadId, RemovalEffect]
    draws: int


def together(
    removal: Removal,
    heads: Sequence[HeadId],
    gone: Sequence[HeadId],
    controls: Controls,
    *,
    smallest: float,
    seed: int,
    progress: Progress | None = None,
) -> Together:
    """The effect of removing `heads` where `gone` are removed already, beside random sets of that size; then each head's part.

    A head's part is what leaving it out of the removed set changes, beside what a random head on top of the set changes.
    Stops where the answer is clear: without a certain effect of the set there is nothing to share out.
    """
    base, everything = frozenset(gone), frozenset(gone) | frozenset(heads)
    before, scale = removal.metric_drop(base), scale_of(removal)
    drop = removal.metric_drop(everything)
    whole = effect_of(drop - before, scale, None, seed)
    if not exceeds(whole, smallest):
        return Together(whole, {}, 0)
    plenty = len(controls.quiet) >= FEW
    counts = (DRAWS,) if plenty else (DRAWS, MANY)

    def against(part: Array, tail: Tail | None) -> RemovalEffect:
        found = effect_of(part, scale, tail, seed)
        # Where there are plenty, few draws are our choice, and what they say stands; it is no lack of heads.
        return replace(found, random_ordinary=found.random_effect) if plenty else found

    for count in counts:
        sets = [base | draw for draw in random_sets(heads, controls.quiet, seed, count)]
        whole = against(drop - before, _tail(removal, sets, base, progress))
        if not unranked(whole, smallest):
            break
    if whole.random_p > RANDOM and not unranked(whole, smallest):
        return Together(whole, {}, len(sets))
    if len(heads) == 1:
        return Together(whole, {heads[0]: whole}, len(sets))
    prepare(removal, [everything - {head} for head in heads], progress, beside=everything)
    parts = {head: drop - removal.metric_drop(everything - {head}) for head in heads}
    members = {head: effect_of(part, scale, None, seed) for head, part in parts.items()}
    singles = _spread(controls.quiet, seed)
    for count in counts if any(exceeds(one, smallest) for one in members.values()) else ():
        tail = _tail(removal, [everything | {head} for head in singles[:count]], everything, progress)
        members = {head: against(part, tail) for head, part in parts.items()}
        if not any(unranked(one, smallest) for one in members.values()):
            break
    if whole.random_p > RANDOM:  # no part is rarer than the set that it is a part of
        members = {head: replace(one, random_p=max(one.random_p, whole.random_p)) for head, one in members.items()}
    return Together(whole, members, len(sets))


def _tail(
    removal: Removal, draws: Sequence[frozenset[HeadId]], gone: frozenset[HeadId], progress: Progress | None
) -> Tail | None:
    """Of what the draws do where heads `gone`, which they all hold, are removed already."""
    sets = list(dict.fromkeys(draws))
    prepare(removal, sets, progress, beside=gone)
    before = removal.metric_drop(gone)
    return Tail.of([removal.metric_drop(one) - before for one in sets])


def _spread(heads: Sequence[HeadId], seed: int) -> list[HeadId]:
    """The heads in random order."""
    return [heads[i] for i in np.random.default_rng(seed).permutation(len(heads))]


def random_sets(
    heads: Sequence[HeadId], free: Sequence[HeadId], seed: int, draws: int = DRAWS
) -> list[frozenset[HeadId]]:
    """Random sets of as many free heads, each head's stand-in from about its depth among the layers that have free heads.

    Depth is counted in those layers alone, so that a layer that does nothing changes no draw. Smaller sets where fewer heads
    are free.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws if free else 0):
        left, drawn = list(free), set()
        for head in heads:
            mine = [one for one in left if one.stack == head.stack]
            if not mine:
                break
            before = sum((one.layer, one.head) < (head.layer, head.head) for one in mine)
            nearest = sorted(range(len(mine)), key=lambda i: (abs(i + 0.5 - before), i))[: max(4, len(mine) // 5)]
            picked = mine[nearest[int(rng.integers(len(nearest)))]]
            drawn.add(picked)
            left.remove(picked)
        found.append(frozenset(drawn))
    return found


def check(found: HeadVerdict, smallest: float) -> Check:
    """Whether the head matters once other observed heads are gone."""
    effect = found.beside
    if effect is None:
        return Check("beside others", "does not apply")
    outcome: Outcome = "passed" if exceeds(effect, smallest) else "failed"
    return Check("beside others", outcome, effect.effect, effect.low, effect.high)
