"""The terms that several kinds of planted heads share: attend back, attend to matches, rest on the first token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq

from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.terms import FULL, MARGIN, REST, Flag, Match, Where
from headatlas.lab.head import Head
from headatlas.ops.types import Array
from headatlas.renamed import old_names


def rest_level(cases: Sequence[Array], strength: float) -> float:
    """The logit of the resting place that leaves the targets `strength` of the attention, averaged over the cases.

    Each case holds the logits of one query's targets.
    """
    totals = np.array([np.logaddexp.reduce(case) for case in cases])
    wanted = min(strength, FULL)

    def excess(level: float) -> float:
        return float((1.0 / (1.0 + np.exp(np.clip(level - totals, -60, 60)))).mean() - wanted)

    return float(brentq(excess, totals.min() - 20.0, totals.max() + 20.0))


def rest(cases: Sequence[Array], strength: float) -> Flag:
    """The term that sends what the targets do not take to the first token."""
    return Flag("first", rest_level(cases, strength))


def match_gain(plan: Plan, spread: float = 0.0) -> float:
    """How many logits a matching code must be worth so that the closest other code stays MARGIN below.

    spread: by how much other terms may favour the other token.
    """
    return (MARGIN + spread) / (1.0 - plan.coherence)


def look_back(plan: Plan, offset: int, strength: float) -> tuple[Where | Flag, ...]:
    """Attend to the token `offset` back, and rest on the first token."""
    kernel = plan.only(offset)
    others = np.delete(kernel.values, offset)
    kernel = kernel.times(MARGIN / (kernel.values[offset] - others.max()))
    return Where(kernel), rest([kernel.values[[offset]]], strength)


def rest_one(level: float, strength: float) -> Flag:
    """The resting term of a head whose single target has the logit `level`."""
    return rest([np.array([level])], strength)


def look_first(plan: Plan, strength: float) -> tuple[Where | Flag, ...]:
    """Attend to the first token with `strength`, and to the current one with the rest."""
    kernel = plan.only(0)
    kernel = kernel.times(MARGIN / (kernel.values[0] - kernel.values[1:].max()))
    return Where(kernel), Flag("first", 2 * float(kernel.values[0]) - rest_level([kernel.values[[0]]], strength))


def match_plain(plan: Plan, match: Callable[[float], Match], strength: float) -> tuple[Match | Flag, ...]:
    """Attend to matching tokens at any distance, and rest on the first token."""
    gain = match_gain(plan)
    return match(gain), rest_one(gain, strength)


def match_before(plan: Plan, head: Head) -> tuple[Match | Flag, ...]:
    """Attend to the tokens whose predecessor, as noted by a previous-token head, equals the current token."""
    size = plan.amplitude("before", head, "a previous-token head")
    return match_plain(plan, lambda gain: Match("token", "before", gain / size), head.strength)


def match_apart(
    plan: Plan, match: Callable[[float], Match], hole: int, flat: int, strength: float
) -> tuple[Match | Where | Flag, ...]:
    """Attend to matching tokens `flat` or more back, not to those less than `hole` back, and rest on the first token.

    The waves cannot draw a hole with a flat surround, so the strength holds on average over distances up to half the
    context. The hole is made no deeper than the strength needs: a weak head stays even, a full one is saturated.
    """
    shape = plan.apart(hole, flat)
    far = shape.values[flat : plan.context // 2]
    for depth in np.arange(2.0, 60.0, 0.5):
        level = rest_level([far[[i]] * depth for i in range(len(far))], strength)
        if shape.values[:hole].max() * depth < level - REST:
            break
    gain = match_gain(plan, depth * float(shape.values.max() - far.min()))
    return match(gain), Where(shape.times(depth)), Flag("first", gain + level)


__getattr__ = old_names(__name__)
