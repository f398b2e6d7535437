"""The address of an attention head: (layer, head, stack)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from headatlas.errors import BadInput

_PATTERN = re.compile(r"^\s*(?:(?P<stack>[a-z]+):)?\s*(?:L(?P<l1>\d+)H(?P<h1>\d+)|(?P<l2>\d+)\.(?P<h2>\d+))\s*$", re.I)


class HeadId(NamedTuple):
    """One attention head; `layer` and `head` count from 0, `stack` is decoder, encoder or cross.

    >>> HeadId.parse("9.6"), str(HeadId(9, 6)), str(HeadId(2, 1, "encoder"))
    (HeadId(layer=9, head=6, stack='decoder'), '9.6', 'encoder:2.1')
    """

    layer: int
    head: int
    stack: str = "decoder"

    @classmethod
    def parse(cls, text: str | HeadId | tuple[int, int] | tuple[int, int, str]) -> HeadId:
        """Read `9.6`, `L9H6` or `encoder:9.6`; tuples and HeadIds pass through. Raises BadInput."""
        if isinstance(text, tuple):
            return cls(*text)
        match = _PATTERN.match(text)
        if not match:
            raise BadInput(f"'{text}' is not a head.", "Write layer.head such as 9.6 or L9H6, or encoder:9.6.")
        layer, head = match["l1"] or match["l2"], match["h1"] or match["h2"]
        return cls(int(layer), int(head), (match["stack"] or "decoder").lower())

    def __str__(self) -> str:
        name = f"{self.layer}.{self.head}"
        return name if self.stack == "decoder" else f"{self.stack}:{name}"


def parse_heads(heads: str | HeadId | Iterable[str | HeadId]) -> tuple[HeadId, ...]:
    """Read one head, a comma- or space-separated string of heads, or an iterable of either."""
    if isinstance(heads, HeadId):
        return (heads,)
    if isinstance(heads, str):
        return tuple(HeadId.parse(part) for part in re.split(r"[,\s]+", heads.strip()) if part)
    return tuple(HeadId.parse(head) for head in heads)
