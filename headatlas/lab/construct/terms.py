"""What a planted head is made of: terms that add up to its attention logits, and what it writes where it attends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headatlas.lab.construct.positions import Kernel

# By how many logits a target stands above everything that is not meant: e^-12 times a few hundred keys is nothing.
MARGIN = 12.0
# By how much the resting place (the first token) stands above a token that is excluded by its distance.
REST = 3.0
# Nothing is promised for copies less than this many tokens back: so near, a repeat cannot be told from the token itself.
NEARBY = 4
# "All of the attention" means this much; the logit of it is about 6.
FULL = 0.998

# Values that are one number and no code.
MARKS = frozenset({"present", "first"})

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
    """A logit that depends on the distance alone; the first token of a text takes no part in it.

    asking: a class of tokens; queries of no other token have this term. Models with a position table cannot do that.
    """

    kernel: Kernel
    asking: str = ""


@dataclass(frozen=True)
class Write:
    """What one unit of attention adds to the stream: the attended token's code, its presence, or a first token's mark.

    value: what of the attended token: a block of the stream (token is its code, before what a previous-token head noted,
    others are features of the vocabulary), or one of MARKS: present (1 for each token but the first), first (1 for the
    first). to: the block that is written.
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
