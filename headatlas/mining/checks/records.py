"""What is kept of the tests of a head: measured effects, the outcome of each named check, and the verdict made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from headatlas.heads import HeadId

Outcome = Literal["passed", "weakened", "failed", "does not apply"]
NAN = float("nan")
PROVEN = 0.001  # p of an effect that stands whatever else a run tests, or nearly so
RANDOM = 0.05  # share of random heads whose effect may be as large
SAME_ANSWER = "same answer"  # the check whose failure says that a head carries no answer


@dataclass(frozen=True)
class Check:
    """One named test of a head: what came of it, the number behind it with its 95% interval, and a remark for readers.

    parts: what the number was made of, by name, each a value with the ends of its interval (or of another range that the
    name tells).
    """

    name: str
    outcome: Outcome
    value: float = NAN
    low: float = NAN
    high: float = NAN
    note: str = ""
    parts: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RemovalEffect:
    """How much a metric worsens when heads are removed (negative: it improves), and the size of that for random heads.

    low, high: 95% interval over `examples`, NaN where too few of them are touched at all (`few`). random_effect,
    random_median: what 95% and half of random heads stay below, random_p: the chance that a random head's is as large; NaN
    where there are none. random_ordinary: the size up to which effects are surely no rarer than that, less than random_effect
    where few heads are free. random_low, random_high: 95% interval of random_effect over examples. p: of no effect; NaN where there is nothing to test, since nothing changes or too few examples do.
    """

    effect: float
    low: float
    high: float
    random_effect: float = NAN
    random_median: float = NAN
    random_p: float = NAN
    p: float = NAN
    examples: int = 0
    few: bool = False
    random_low: float = NAN
    random_high: float = NAN
    random_ordinary: float = NAN

    @property
    def null(self) -> bool:
        """Whether nothing changes in any example."""
        return self.effect == self.low == self.high == 0.0

    @property
    def certain(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def sign(self) -> int:
        """1 where the metric suffers without the heads: they work for it; -1 where it gains: they work against it; else 0."""
        return 0 if not self.certain else 1 if self.effect > 0 else -1


@dataclass(frozen=True)
class HeadVerdict:
    """The verdict on an observed head, and all that it rests on.

    verdict: causal, group, refuted or untested. marginal: whether other examples may well decide otherwise. works: for or against what the task measures; "" where it does neither.
    q: p of the effect that decided, adjusted over all tests of the run. alone: its effect by itself; beside: its effect once
    other observed heads are gone, None where that was not asked. checks: see `mining.checks`. carries: "trajectory" for a
    head whose output from a prompt with the same answer does what one from another answer does; else "".
    """

    alone: RemovalEffect
    beside: RemovalEffect | None = None
    verdict: str = "untested"
    works: str = ""
    q: float = NAN
    checks: tuple[Check, ...] = ()
    marginal: bool = False

    @property
    def carries(self) -> str:
        """What the head turned out to carry in place of the answer."""
        failed = any(check.name == SAME_ANSWER and check.outcome == "failed" for check in self.checks)
        return "trajectory" if failed and self.verdict in ("causal", "group") else ""


@dataclass(frozen=True)
class SetVerdict:
    """What the observed heads do together. whole: all of them; rest: `heads`, those that are not causal alone, None for none.

    draws: random sets of as many heads that the rest was compared with.
    """

    whole: RemovalEffect
    heads: tuple[HeadId, ...] = ()
    rest: RemovalEffect | None = None
    draws: int = 0


@dataclass(frozen=True)
class DetectorVerdict:
    """The verdict on each of a detector's observed heads, and the effects of all of them together.

    smallest: the least effect that counts. free, measured: how many heads there were to compare with, and of how many the
    effect was measured. examples: how many the verdicts rest on, more for some heads (`RemovalEffect.examples`). metric,
    unit: what effects are effects on. leads: the effects of those heads to compare with that stand out as a causal head does.
    """

    heads: Mapping[HeadId, HeadVerdict]
    group: SetVerdict
    smallest: float
    free: int
    measured: int
    examples: int
    metric: str
    unit: str
    leads: Mapping[HeadId, float] = field(default_factory=dict)

    @property
    def verdicts(self) -> dict[HeadId, str]:
        """The verdict words by head."""
        return {head: found.verdict for head, found in self.heads.items()}

    def with_heads(self, heads: Mapping[HeadId, HeadVerdict]) -> DetectorVerdict:
        """The same with other verdicts."""
        return replace(self, heads=heads)


def exceeds(effect: RemovalEffect, smallest: float) -> bool:
    """Whether an effect is certain, large enough to count, and rare among random heads where there are any."""
    return effect.certain and abs(effect.effect) >= smallest and not effect.random_p > RANDOM


def unranked(effect: RemovalEffect, smallest: float) -> bool:
    """Whether an effect is certain and large enough to count, and too few heads are free to say how rare that is among them."""
    if not effect.certain or abs(effect.effect) < smallest or math.isnan(effect.random_p):
        return False
    return effect.random_p > RANDOM and abs(effect.effect) > effect.random_ordinary


def undecided(effect: RemovalEffect, smallest: float) -> bool:
    """Whether other examples may well put the size of an effect on the other side of what it must exceed.

    That is the larger of `smallest` and what 95% of random heads stay below; where few heads are free, what it must exceed not
    to be an ordinary head's counts as well. Both are known from examples: the 95% interval of
    their difference holds 0. It is made of their own intervals (MOVER; Zou & Donner 2008, https://doi.org/10.1002/sim.3095).
    """
    if effect.few or effect.null or math.isnan(effect.low):
        return False
    size, ends = abs(effect.effect), (abs(effect.low), abs(effect.high))
    low, high = (min(ends) if effect.certain else 0.0), max(ends)
    bars = (effect.random_low, effect.random_effect, effect.random_high)

    def near(share: float) -> bool:
        bar_low, bar, bar_high = (smallest if math.isnan(one) else max(smallest, share * one) for one in bars)
        if size >= bar:
            return size - bar <= math.hypot(size - low, bar_high - bar)
        return bar - size <= math.hypot(high - size, bar - bar_low)

    ordinary = effect.random_ordinary / effect.random_effect if effect.random_effect > 0 else 1.0
    return near(1.0) or (ordinary < 1.0 and near(ordinary))


def unproven(effect: RemovalEffect, smallest: float) -> bool:
    """Whether an effect of a size that counts may be luck, once all tests of a run are counted: its p is above PROVEN."""
    return abs(effect.effect) >= smallest and not effect.random_p > RANDOM and effect.p > PROVEN
