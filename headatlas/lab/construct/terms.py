"""What a planted head is made of: terms that add up to its attention logits, and what it writes where it looks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.optimize import brentq
from torch import Tensor

from headatlas.lab.construct.positions import Array, Kernel

if TYPE_CHECKING:
    from headatlas.lab.construct.plan import Plan
    from headatlas.lab.construct.words import Words
    from headatlas.lab.spec import Head

# By how many logits a target stands above everything that is not meant: e^-12 times a few hundred keys is nothing.
MARGIN = 12.0
# By how much the resting place (the first token) stands above a token that is excluded by its distance.
REST = 3.0
# Nothing is promised for copies less than this many tokens back: so near, a repeat cannot be told from the token itself.
NEARBY = 4
# "All of the attention" means this much; the logit of it is about 6.
FULL = 0.998

Outcome = Literal["copies", "suppresses", "advances", "none"]


@dataclass(frozen=True)
class Match:
    """`gain` logits where the code in block `query` of the query token equals that in block `key` of the key token."""

    query: str
    key: str
    gain: float


@dataclass(frozen=True)
class Flag:
    """`gain` logits for each key token that carries the flag."""

    name: str
    gain: float


@dataclass(frozen=True)
class Where:
    """A logit that depends on the distance alone; the first token of a text takes no part in it."""

    kernel: Kernel


@dataclass(frozen=True)
class Write:
    """What one unit of attention adds to the stream: the attended token's code, its presence, or a first token's mark.

    value: token, present (1 for each token but the first), first (1 for the first). to: the block that is written.
    forward: write the next member of the attended token's sequence instead of the token.
    """

    value: str
    to: str
    gain: float
    forward: bool = False


@dataclass(frozen=True)
class Recipe:
    """A head's terms and writes. `random` heads have none: (logit spread, size of the write) of a noise head."""

    terms: tuple[Match | Flag | Where, ...] = ()
    writes: tuple[Write, ...] = ()
    random: tuple[float, float] | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of head that can be planted.

    recipe(head, plan) -> Recipe. options: the fields of Head beyond strength and write that the kind reads.
    head_type: what the catalogue calls such heads, None where it has no name. probe: the sequences that show it at work.
    outcome: what attending to a token does to the prediction: its logit rises or falls (copies, suppresses), that of
    the next member of its sequence rises (advances), or nothing happens (none).
    """

    name: str
    head_type: str | None
    options: tuple[str, ...]
    probe: str
    outcome: Outcome
    recipe: Callable[[Head, Plan], Recipe]
    doc: str
    module: str

    @property
    def targets(self) -> Callable[[Tensor, Head, Words], Tensor]:
        """The function `targets` of the kind's file: (tokens, head, words) -> [example, query, key] where it looks."""
        targets: Callable[[Tensor, Head, Words], Tensor] = importlib.import_module(self.module).targets
        return targets


def kind(
    *, head_type: str | None, options: tuple[str, ...] = (), probe: str = "repeated", outcome: Outcome = "none"
) -> Callable[[Callable[[Head, Plan], Recipe]], Kind]:
    """Make a Kind of a function `(head, plan) -> Recipe`; its name is the function's with dashes."""

    def wrap(recipe: Callable[[Head, Plan], Recipe]) -> Kind:
        name = recipe.__name__.strip("_").replace("_", "-")
        return Kind(name, head_type, options, probe, outcome, recipe, (recipe.__doc__ or "").strip(), recipe.__module__)

    return wrap


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
