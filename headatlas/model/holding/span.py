"""How much of a text a key-value group keeps, and what a layer's own cache holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from headatlas.errors import BadInput

INDEX_BYTES = 4  # of the number that says which token a slot of a window holds


class LayerShape(NamedTuple):
    """One layer's cache: groups (key-value heads), width of their keys and values, and how many tokens the model itself lets a
    query see, itself included; None: all."""

    n_groups: int
    d_key: int
    d_value: int
    window: int | None = None

    @property
    def numbers(self) -> int:
        """Of one token in one group: its key and its value."""
        return self.d_key + self.d_value

    def seen(self, n_tokens: int) -> int:
        """How many tokens of a text of this many the model's own cache has to hold."""
        return n_tokens if self.window is None else min(n_tokens, self.window)


@dataclass(frozen=True)
class Span:
    """The first `sinks` tokens of a text and the last `recent`, the token that asks among them.

    share: where more, this share of the tokens that were read first (RazorAttention has 1/5). compensate: the tokens between become one
    more key and value, their mean, which weighs as many times as they are (RazorAttention). Raises BadInput.
    """

    sinks: int = 4
    recent: int = 256
    share: float = 0.0
    compensate: bool = False

    def __post_init__(self) -> None:
        if self.sinks < 0 or self.recent < 1 or not 0 <= self.share <= 1:
            raise BadInput(
                f"A span of {self.sinks} first and {self.recent} recent tokens (share {self.share:g}) cannot be kept.",
                "Give 0 or more first tokens, 1 or more recent ones, and a share from 0 to 1.",
            )

    def recent_of(self, n_tokens: int) -> int:
        """How many recent tokens are kept of a text of this many."""
        return max(self.recent, math.ceil(self.share * n_tokens - 1e-9))

    def within(self, window: int | None) -> Span:
        """The same inside a window of the model's own, where first tokens cannot be seen once they are out of it."""
        if window is None:
            return self
        return Span(0, min(self.recent, window), self.share, compensate=False)

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        return dict(vars(self))
