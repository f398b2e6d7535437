"""From measured effects to verdicts, over all tests of a run at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from headatlas.mining.checks import beside_others, false_discoveries, own_effect, random_heads
from headatlas.mining.checks.records import (
    RANDOM,
    DetectorVerdict,
    HeadVerdict,
    RemovalEffect,
    exceeds,
    undecided,
    unranked,
)

Key = TypeVar("Key")
NEAR = 5  # times that a q may be off its level before a verdict hangs on the draw no more
WORKS = {1: "for", -1: "against", 0: ""}


def settled(found: Mapping[Key, DetectorVerdict]) -> dict[Key, DetectorVerdict]:
    """The same with the verdict on each head, what it works for, q over all these detectors' tests, and the checks."""
    places = [(key, head) for key, one in found.items() for head in one.heads]
    heads = [found[key].heads[head] for key, head in places]
    q = false_discoveries.adjusted([*(one.alone for one in heads), *(one.beside for one in heads)])
    result = {key: dict(one.heads) for key, one in found.items()}
    for (key, head), one, alone, beside in zip(places, heads, q, q[len(heads) :], strict=False):
        result[key][head] = _settle(one, alone, beside, found[key].smallest)
    return {key: one.with_heads(result[key]) for key, one in found.items()}


def _settle(found: HeadVerdict, alone: float, beside: float, smallest: float) -> HeadVerdict:
    decided, verdict, q = found.alone, "refuted", alone
    if _stands(found.alone, alone, smallest):
        verdict = "causal"
    elif found.beside is not None and _stands(found.beside, beside, smallest):
        decided, verdict, q = found.beside, "group", beside
    elif found.alone.few or any(unranked(one, smallest) for one in (found.alone, found.beside) if one is not None):
        verdict = "untested"
    works = WORKS[decided.sign] if verdict in ("causal", "group") else ""
    marginal = _marginal(found, verdict, smallest) or _near_luck(decided, q, smallest)
    found = replace(found, verdict=verdict, works=works, q=q, marginal=marginal and verdict != "untested")
    checks = (
        own_effect.check(found, smallest),
        random_heads.check(found, smallest),
        beside_others.check(found, smallest),
        false_discoveries.check(found),
    )
    names = {check.name for check in checks}
    return replace(found, checks=(*checks, *(check for check in found.checks if check.name not in names)))


def _stands(effect: RemovalEffect, q: float, smallest: float) -> bool:
    return exceeds(effect, smallest) and q <= false_discoveries.LEVEL


def _marginal(found: HeadVerdict, verdict: str, smallest: float) -> bool:
    """Whether an effect is so close to what it must exceed that other examples may give another verdict."""
    beside = found.beside if verdict != "causal" else None
    return any(undecided(one, smallest) for one in (found.alone, beside) if one is not None)


def _near_luck(effect: RemovalEffect, q: float, smallest: float) -> bool:
    """Whether an effect large enough to count has a q within NEAR times of what it must stay below."""
    large = abs(effect.effect) >= smallest and not effect.random_p > RANDOM
    return large and false_discoveries.LEVEL / NEAR <= q <= NEAR * false_discoveries.LEVEL
