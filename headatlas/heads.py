"""The address of an attention head: (layer, head, stack)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import NamedTuple

from headatlas.errors import BadInput

_SEVERAL = re.compile(r"^(?:(?P<stack>[a-z]+|\*):)?L?(?P<layer>\d+|\*)(?:H|\.)(?P<head>\d+|\*)$", re.I)
_PATTERN = re.compile(r"^\s*(?:(?P<stack>[a-z]+):)?\s*(?:L(?P<l1>\d+)H(?P<h1>\d+)|(?P<l2>\d+)\.(?P<h2>\d+))\s*$", re.I)

USAGE = "Write layer.head such as 9.6 or L9H6, or encoder:9.6, in quotation marks, or a pair such as (9, 6); 9.* is a whole layer."


class HeadId(NamedTuple):
    """One attention head; `layer` and `head` count from 0, `stack` is decoder, encoder or cross.

    >>> HeadId.parse("9.6"), str(HeadId(9, 6)), str(HeadId(2, 1, "encoder"))
    (HeadId(layer=9, head=6, stack='decoder'), '9.6', 'encoder:2.1')
    """

    layer: int
    head: int
    stack: str = "decoder"

    @classmethod
    def parse(cls, text: str | HeadId | tuple[int, int] | tuple[int, int, str] | list[int]) -> HeadId:
        """Read `9.6`, `L9H6` or `encoder:9.6`; (9, 6), (9, 6, "encoder"), [9, 6] and HeadIds pass through. Raises BadInput."""
        if isinstance(text, tuple | list):
            if not _is_address(text):
                raise BadInput(f"{text!r} is not a head.", USAGE)
            return cls(int(text[0]), int(text[1]), *map(str, text[2:]))
        if isinstance(text, float):  # 9.10 and 9.1 are one number, and two heads
            raise BadInput(f"The number {text!r} is not a head: 9.1 and 9.10 would be the same.", USAGE)
        if not isinstance(text, str):
            raise BadInput(f"{text!r} is not a head.", USAGE)
        match = _PATTERN.match(text)
        if not match and "*" in text and _SEVERAL.match(text.strip()):
            raise BadInput(f"'{text}' names several heads, and one is wanted here, or no model says which.", USAGE)
        if not match:
            raise BadInput(f"'{text}' is not a head.", USAGE)
        layer, head = match["l1"] or match["l2"], match["h1"] or match["h2"]
        return cls(int(layer), int(head), (match["stack"] or "decoder").lower())

    def __str__(self) -> str:
        name = f"{self.layer}.{self.head}"
        return name if self.stack == "decoder" else f"{self.stack}:{name}"


# One head, or several: "9.6", "9.6 9.9", (9, 6), HeadId(9, 6), and lists of these.
Heads = str | HeadId | tuple[int, int] | Iterable[str | HeadId | tuple[int, int]]
# The same, and lists of several heads each, such as [("9.6", "9.9"), "10.1"]: heads that change together.
HeadSets = Heads | Iterable[Heads]


def _is_address(value: object) -> bool:
    """Whether a value is a head as a pair: (layer, head) or (layer, head, stack)."""
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        return False
    whole = all(isinstance(part, Integral) and not isinstance(part, bool) and int(part) >= 0 for part in value[:2])
    return whole and (len(value) == 2 or isinstance(value[2], str))


def heads_like(pattern: str, among: Sequence[HeadId]) -> tuple[HeadId, ...]:
    """The heads that a pattern names: "18.*" a layer, "*.3", "*.*" a stack, "*:2.*" a layer of every stack. Raises BadInput.

    >>> [str(head) for head in heads_like("1.*", [HeadId(0, 0), HeadId(1, 0), HeadId(1, 1)])]
    ['1.0', '1.1']
    """
    match = _SEVERAL.match(pattern)
    if not match:
        raise BadInput(f"'{pattern}' is not a head.", USAGE)
    stacks = {head.stack for head in among}
    own = "decoder" if "decoder" in stacks or len(stacks) != 1 else next(iter(stacks))
    stack = (match["stack"] or own).lower()
    wanted = ((stack, "stack"), (match["layer"], "layer"), (match["head"], "head"))
    found = tuple(h for h in among if all(asked in ("*", str(getattr(h, name))) for asked, name in wanted))
    if not found:
        raise BadInput(f"'{pattern}' names no head of this model.", USAGE)
    return found


def _read(one: object, among: Sequence[HeadId]) -> tuple[HeadId, ...]:
    """One head, or the heads of a pattern where it is known which there are."""
    if isinstance(one, str) and "*" in one and among:
        return heads_like(one.strip(), among)
    return (HeadId.parse(one),)  # type: ignore[arg-type]  # which refuses what is no head


def _parts(heads: Heads) -> list[object]:
    """What is named, one by one: heads in any form, and patterns as text. Raises BadInput where nothing is."""
    if _is_address(heads):
        found: list[object] = [heads]
    elif isinstance(heads, str):
        found = [part for part in re.split(r"[,\s]+", heads.strip()) if part]
    elif isinstance(heads, Iterable):
        found = list(heads)
    elif isinstance(heads, float):
        found = [heads]  # which `HeadId.parse` refuses, saying why a number is none
    else:
        found = []
    if not found:
        raise BadInput(f"{heads!r} names no heads.", USAGE)
    return found


def parse_heads(heads: Heads, among: Sequence[HeadId] = ()) -> tuple[HeadId, ...]:
    """Read one head ("9.6", (9, 6)), a comma- or space-separated string of heads, or an iterable of heads.

    among: every head that there is, of which patterns such as "18.*" choose; without them patterns are refused.
    Raises BadInput for what is no head, and where none is named.
    """
    return tuple(head for part in _parts(heads) for head in _read(part, among))


def parse_named(heads: Heads) -> tuple[tuple[HeadId, ...], tuple[str, ...]]:
    """The heads that are named, and the patterns ("18.*") that stand among them, for whoever knows no model yet. Raises BadInput."""
    named: list[HeadId] = []
    patterns: list[str] = []
    for part in _parts(heads):
        if isinstance(part, str) and "*" in part:
            if not _SEVERAL.match(part.strip()):
                raise BadInput(f"'{part}' is not a head.", USAGE)
            patterns.append(part.strip())
        else:
            named.append(HeadId.parse(part))  # type: ignore[arg-type]  # which refuses what is no head
    return tuple(named), tuple(dict.fromkeys(patterns))


def parse_head_sets(heads: HeadSets, among: Sequence[HeadId] = ()) -> tuple[tuple[HeadId, ...], ...]:
    """Read heads that change one by one ("9.6 9.9", [(9, 6), "9.*"]) or together ([("9.6", "9.9"), "10.1"]).

    among: as in `parse_heads`; inside a set "9.*" is a whole layer that changes together. Raises BadInput.
    """
    if isinstance(heads, str) or _is_address(heads) or not isinstance(heads, Iterable):
        return tuple((head,) for head in parse_heads(heads, among))  # type: ignore[arg-type]
    found: tuple[tuple[HeadId, ...], ...] = ()
    for one in heads:
        if isinstance(one, str) and "*" in one and not re.search(r"[,\s]", one.strip()):
            found += tuple((head,) for head in parse_heads(one, among))
        else:
            found += (parse_heads(one, among),)  # type: ignore[arg-type]
    if not found:
        raise BadInput(f"{heads!r} names no heads.", USAGE)
    return found
