"""Edits as files: what they do as JSON, their numbers as safetensors, so that they can be kept, shared and loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from headatlas.edits.affine import Affine
from headatlas.edits.attention import Attend, Block, Temper
from headatlas.edits.base import OnHeads
from headatlas.edits.mean import Mean
from headatlas.edits.move import Add, Project, Scale
from headatlas.edits.replace import Resample, Swap, Zero
from headatlas.errors import BadInput, StoreError
from headatlas.heads import HeadId
from headatlas.reading import Name, Source, Written, checked, demand_schema, read_json, read_tensors
from headatlas.store import new_folder, write_json

SCHEMA = "headatlas/edits/1"


class _Edit(Written):
    kind: Name
    heads: list[Name]
    layers: list[Name]
    site: Name
    group: bool
    positions: Any = None
    options: dict[str, Any]
    text: str = ""


class _File(Written):
    schema_: str = Field(alias="schema")
    edits: Annotated[list[_Edit], Field(max_length=100_000)]


KINDS: dict[str, type[OnHeads]] = {
    kind.__name__: kind for kind in (Zero, Mean, Resample, Swap, Add, Project, Scale, Block, Attend, Temper, Affine)
}


def save(edits: Sequence[OnHeads], folder: str | Path) -> None:
    """Write edits to a new folder (`edits.json`, `edits.safetensors`); whole or not at all. Raises BadInput, StoreError."""
    tensors: dict[str, Tensor] = {}
    described = [_described(edit, number, tensors) for number, edit in enumerate(edits)]
    with new_folder(Path(folder)) as half:
        save_file(tensors, half / "edits.safetensors")
        write_json(half / "edits.json", {"schema": SCHEMA, "edits": described})


def load_edits(folder: str | Path) -> list[OnHeads]:
    """Read what `save` wrote. Raises StoreError naming what is missing or damaged."""
    place = Path(folder)
    for name in ("edits.json", "edits.safetensors"):
        if not (place / name).is_file():
            raise StoreError(f"{place} holds no edits: it has no {name}.", "Give a folder that `save` made.")
    source = Source(place / "edits.json", "Save the edits again.")
    data = read_json(source)
    demand_schema(data, SCHEMA, source)
    entries = checked(data, _File, source)["edits"]
    tensors = read_tensors(Source(place / "edits.safetensors", "Save the edits again."))
    found = []
    for number, entry in enumerate(entries):
        with source.explained():
            try:
                found.append(_made(entry, tensors))
            except BadInput as error:
                raise source.bad(f"is damaged: edits[{number}]: {error.message.rstrip('.')}") from error
    return found


def _described(edit: OnHeads, number: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """One edit as JSON; its tensors go to `tensors` under names that start with its number."""
    kind = type(edit).__name__
    if KINDS.get(kind) is not type(edit):
        raise BadInput(f"An edit of your own class {kind} cannot be saved.", f"Savable are {', '.join(KINDS)}.")

    def put(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().contiguous()
            return {"tensor": name}
        if isinstance(value, Mapping):
            return {"by_key": [[_written(key), put(item, f"{name}.{_written(key)}")] for key, item in value.items()]}
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{edit!r} has {value} for {name.partition('.')[2]}.", "Only finite numbers can be saved.")
        return value

    return {
        "kind": kind,
        "heads": [*map(str, edit.heads), *edit.patterns],
        "layers": [f"{stack}:{layer}" for stack, layer in sorted(edit.layers)],
        "site": edit.component,
        "group": edit.group,
        "positions": put(edit.positions, f"{number}.positions"),
        "options": {name: put(value, f"{number}.{name}") for name, value in edit.options().items()},
        "text": repr(edit),
    }


def _written(key: Any) -> str:
    return str(key) if isinstance(key, HeadId) else f"{key[0]}:layer:{key[1]}"


def _read(key: str) -> Any:
    stack, _, layer = key.partition(":layer:")
    return (stack, int(layer)) if layer else HeadId.parse(key)


def _made(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> OnHeads:
    """The edit that JSON and tensors describe."""

    def get(value: Any) -> Any:
        if isinstance(value, dict) and "tensor" in value:
            return tensors[value["tensor"]]
        if isinstance(value, dict):
            return {_read(key): get(item) for key, item in value["by_key"]}
        return value

    kind: Any = KINDS.get(entry["kind"])
    if kind is None:
        raise BadInput(f"there is no kind of edit '{entry['kind'][:60]}'.", f"Savable are {', '.join(KINDS)}.")
    options = {name: get(value) for name, value in entry["options"].items()}
    positions = get(entry["positions"])
    where: dict[str, Any] = {"component": entry["site"], "positions": positions, "group": entry["group"]}
    if kind in (Block, Attend):
        where = {"queries": positions}
    elif kind is Temper:
        where = {"positions": positions}
    heads = " ".join(entry["layers"] if entry["site"] == "residual" else entry["heads"])
    made: OnHeads = kind(heads, **options, **where)
    return made
