"""One head to plant: its place, its kind and its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headatlas.heads import HeadId


@dataclass(frozen=True)
class Head:
    """One head to plant; `headatlas.lab.spec.kinds()` has the kinds, each says which options it reads; `PlantSpec` checks them.

    strength: the share of attention that goes to the target where there is one (1.0 means at least 0.99).
    write: how much is written where the head attends, in units of one token code; a copying head with strength 1 and
    write 1 makes the model certain of the copied token.
    offset: positional; how many tokens back. width: window; how many tokens, the current one included.
    far: retrieval; the nearest distance it reaches. tokens: mover, delimiter and inhibition; the class of tokens it attends to,
    names, delimiters, ordinals or one that the vocabulary has beside them.
    finds: inhibition; the duplicated token or the most recent one.
    reads: copier; the block of the attended token that is copied. to: copier, mover, inhibition and induction; the block that it is
    copied into ("next": what is predicted, "junk": where nothing reads) instead of the kind's own.
    spread: noise; the standard deviation of its attention logits. A noise head writes half of `write`.
    """

    layer: int
    head: int
    kind: str
    strength: float = 1.0
    write: float = 1.0
    offset: int = 5
    width: int = 8
    far: int = 32
    tokens: str | None = None
    finds: Literal["duplicate", "recent"] = "duplicate"
    reads: str = "token"
    to: str | None = None
    spread: float = 1.0

    @property
    def id(self) -> HeadId:
        """Its address."""
        return HeadId(self.layer, self.head)

    def __str__(self) -> str:
        return f"{self.kind} head {self.id}"
