"""Head types that a user defines beside the catalogue's: known in this process, and kept with the runs that use them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headatlas.catalogue.load import load
from headatlas.errors import BadInput

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class OwnHeadType:
    """A head type of a user's own. stage: id of the survey's stage (kr, ici, lr or ep); role: what such heads do, in words."""

    id: str
    name: str
    stage: str
    role: str


_known: dict[str, OwnHeadType] = {}


def define_head_type(id: str, *, stage: str, role: str, name: str = "") -> str:
    """Define a head type for detectors of your own; returns its id, which `detector(head_type=...)` takes.

    Raises BadInput for an id that the catalogue has or that is no lower-case words with dashes, and for an unknown stage.
    """
    if not _ID.fullmatch(id):
        raise BadInput(f"'{id}' is no id of a head type.", "Write lower-case words with dashes, such as my-kind.")
    if id in load().heads:
        raise BadInput(f"The catalogue has a head type '{id}' already.", "Use it, or choose another id.")
    if stage not in load().stages:
        raise BadInput(f"'{stage}' is not a stage.", f"Choose one of {', '.join(load().stages)}.")
    _known[id] = OwnHeadType(id, name or id.replace("-", " ").capitalize(), stage, role)
    return id


def own_head_type(id: str) -> OwnHeadType | None:
    """The head type that was defined in this process under this id, if any."""
    return _known.get(id)


def own_data(ids: Mapping[str, Any] | list[str]) -> dict[str, dict[str, Any]]:
    """Those of these head types that were defined in this process, as a report has them."""
    found = {one: _known[one] for one in ids if one in _known}
    return {one: {**asdict(kind), "dimension": "of one's own", "papers": []} for one, kind in found.items()}
