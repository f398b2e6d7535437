"""What to plant: heads by position and kind, how strongly, and how much noise around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.head import Head
from headatlas.lab.kind import Kind
from headatlas.registry import discover, lookup
from headatlas.renamed import old_names

_CHOICES = {"finds": ("duplicate", "recent")}
_COMMON = ("layer", "head", "kind", "strength", "write")


@dataclass(frozen=True)
class PlantSpec:
    """The heads of a planted model.

    rest: what all other heads are: noise (random weights that attend and write a little) or dormant.
    noise: superposition noise, relative: every token code, position code and every component of the planted queries,
    keys, values and writes gets this much of its own size as a random mixture of everything else in the stream.
    """

    heads: tuple[Head, ...] = ()
    rest: Literal["noise", "dormant"] = "noise"
    noise: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple(self.heads))
        if self.rest not in ("noise", "dormant"):
            raise BadInput(f"rest='{self.rest}' is not known.", "Write noise or dormant.")
        if not (math.isfinite(self.noise) and 0.0 <= self.noise <= 2.0):
            raise BadInput(f"noise must lie between 0 and 2, got {self.noise}.")
        seen: dict[HeadId, Head] = {}
        for head in self.heads:
            if head.id in seen:
                raise BadInput(f"Two heads are planted at {head.id}: {seen[head.id].kind} and {head.kind}.")
            seen[head.id] = head
            _check(head)


def kinds() -> Mapping[str, Kind]:
    """Every kind of head that can be planted, by name."""
    return discover("headatlas.lab.kinds", Kind)


def find_kind(name: str) -> Kind:
    """The kind called `name`; raises UnknownName."""
    return lookup(kinds(), name, "kind of planted head", f"Known: {', '.join(kinds())}.")


def facts(head: Head) -> dict[str, Any]:
    """The fields of a head that its kind reads, for saving and printing."""
    used = (*_COMMON, *find_kind(head.kind).options)
    return {name: value for name, value in asdict(head).items() if name in used}


def parse_head(text: str) -> Head:
    """Read `layer.head:kind[:strength][:option=value ...]`, such as `1.0:induction:0.6` or `0.2:window:width=4`."""
    place, *parts = text.split(":")
    usage = "Write layer.head:kind[:strength][:option=value], such as 1.0:induction:0.6."
    if not parts:
        raise BadInput(f"'{text}' names no kind of head.", usage)
    found, values = find_kind(parts[0]), {"strength": "1"}
    for i, part in enumerate(parts[1:]):
        name, equals, value = part.partition("=")
        values |= {name: value} if equals else {"strength" if i == 0 else part: part}
    head = HeadId.parse(place)
    types = {option.name: type(option.default) for option in fields(Head) if option.default is not MISSING}
    chosen: dict[str, Any] = {}
    for name, value in values.items():
        if name not in ("strength", "write", *found.options):
            raise BadInput(f"'{text}': a {found.name} head does not read '{name}'.", usage)
        try:
            chosen[name] = value if types[name] not in (int, float) else types[name](value)
        except ValueError as error:
            raise BadInput(f"'{text}': {name} must be a number, got '{value}'.", usage) from error
    return Head(head.layer, head.head, found.name, **chosen)


def _check(head: Head) -> None:
    found = find_kind(head.kind)
    if not 0.2 <= head.strength <= 1.0:
        raise BadInput(f"The {head} has strength {head.strength}.", "Write a share between 0.2 and 1.")
    if not (math.isfinite(head.write) and 0.0 < head.write <= 4.0):
        raise BadInput(f"The {head} has write {head.write}.", "Write a size above 0 and up to 4.")
    if head.layer < 0 or head.head < 0:
        raise BadInput(f"There is no head {head.id}.", "Layers and heads count from 0.")
    for name, known in _CHOICES.items():
        if getattr(head, name) not in known:
            words = ", ".join(str(word) for word in known if word is not None)
            raise BadInput(f"The {head} has {name}='{getattr(head, name)}'.", f"Write one of: {words}.")
    for option in fields(Head):
        if option.name in _COMMON or option.name in found.options:
            continue
        if getattr(head, option.name) != option.default:
            allowed = ", ".join(found.options) or "no options"
            raise BadInput(
                f"The {head} was given {option.name}, which its kind does not read.", f"It reads: {allowed}."
            )


__getattr__ = old_names(__name__)
