"""Recipes as files: what they are as JSON, their numbers as safetensors, each held against the other when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from headatlas.apply.recipe.recipe import ALWAYS, ANSWERING, Recipe, names
from headatlas.errors import BadInput, StoreError
from headatlas.heads import HeadId
from headatlas.reading import Name, Open, Source, Written, checked, demand_schema, read_bytes, read_json, read_tensors
from headatlas.store import new_folder, write_json
from headatlas.version import __version__

SCHEMA = "headatlas/recipe/1"
JSON, TENSORS = "recipe.json", "recipe.safetensors"
_HINT = "Fit the recipe again, or copy the whole folder."
_LARGEST = 1 << 30


class _Entry(Written):
    scale: Annotated[list[Name], Field(max_length=100_000)]
    shift: Annotated[list[Name], Field(max_length=100_000)]
    stream: Annotated[list[Name], Field(max_length=100_000)]
    query: Annotated[list[Name], Field(max_length=100_000, default_factory=list)]  # earlier recipes lack both
    reads: Annotated[list[Name], Field(max_length=100_000, default_factory=list)]


class _Facts(Open):
    pass


class _File(Written):
    schema_: str = Field(alias="schema")
    headatlas: Name
    intervention: Name
    when: Name
    recipe: _Entry
    rivals: Annotated[list[_Entry], Field(max_length=1000)]
    tensors: Name
    facts: _Facts


def save_recipe(recipe: Recipe, folder: str | Path) -> None:
    """Write a recipe to a new folder (`recipe.json`, `recipe.safetensors`); whole or not at all. Raises BadInput, StoreError."""
    tensors: dict[str, Tensor] = {}
    entries = [_described(one, number, tensors) for number, one in enumerate((recipe, *recipe.rivals))]
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise BadInput(f"{recipe!r} has numbers that are not finite ({name}).", "Fit it again with a smaller rate.")
    with new_folder(Path(folder)) as half:
        save_file(tensors, half / TENSORS)
        write_json(half / JSON, {
            "schema": SCHEMA, "headatlas": __version__, "intervention": recipe.intervention, "when": recipe.when,
            "recipe": entries[0], "rivals": entries[1:], "tensors": _sha256((half / TENSORS).read_bytes()),
            "facts": recipe.facts,
        })  # fmt: skip


def load_recipe(folder: str | Path) -> Recipe:
    """Read what `save_recipe` wrote. Raises StoreError naming what is missing, damaged, or of something else."""
    place = Path(folder)
    for name in (JSON, TENSORS):
        if not (place / name).is_file():
            raise StoreError(f"{place} holds no recipe: it has no {name}.", "Give a folder that `apply NAME fit` made.")
    source = Source(place / JSON, _HINT)
    data = read_json(source)
    demand_schema(data, SCHEMA, source)
    known = checked(data, _File, source)
    numbers = Source(place / TENSORS, _HINT, largest=_LARGEST)
    if _sha256(read_bytes(numbers)) != known["tensors"]:
        raise numbers.bad(f"is damaged, or belongs to another recipe than {JSON}")
    if known["when"] not in (ALWAYS, ANSWERING):
        raise source.bad(f"is damaged: when is '{known['when'][:60]}', expected: {ALWAYS} or {ANSWERING}")
    tensors = read_tensors(numbers)
    with source.explained():
        try:
            first, *rest = [
                _made(known, entry, number, tensors) for number, entry in enumerate([known["recipe"], *known["rivals"]])
            ]
        except BadInput as error:
            raise source.bad(f"is damaged: {error.message.rstrip('.')}") from error
    if tensors:
        raise numbers.bad(f"holds numbers that {JSON} does not name ({min(tensors)[:60]})")
    return replace(first, facts=known["facts"], rivals=tuple(rest))


def _described(recipe: Recipe, number: int, tensors: dict[str, Tensor]) -> dict[str, list[str]]:
    """Which heads and layers have which numbers; the numbers go to `tensors`."""
    parts: dict[str, Mapping[Any, Tensor]] = {
        "scale": recipe.scale,
        "shift": recipe.shift,
        "stream": recipe.stream,
        "query": recipe.query,
    }
    for part, values in parts.items():
        for key, value in values.items():
            tensors[f"{number}.{part}.{_name(key)}"] = value.detach().float().cpu().contiguous().clone()
    return {**{part: [_name(key) for key in values] for part, values in parts.items()}, "reads": names(recipe.reads)}


def _name(key: Any) -> str:
    return str(key) if isinstance(key, HeadId) else f"{key[0]}:{key[1]}"


def _made(known: Mapping[str, Any], entry: Mapping[str, Any], number: int, tensors: dict[str, Tensor]) -> Recipe:
    """One recipe of a file; takes its numbers out of `tensors`. Raises BadInput."""

    def take(part: str, name: str, ndim: int = 1) -> Tensor:
        value = tensors.pop(f"{number}.{part}.{name}", None)
        if value is None or value.ndim != ndim or value.dtype != torch.float32 or not bool(torch.isfinite(value).all()):
            raise BadInput(f"{part} of {name[:60]} is no row of finite numbers.")
        return value

    scale, shift = ({HeadId.parse(name): take(part, name) for name in entry[part]} for part in ("scale", "shift"))
    stream = {_layer(name): take("stream", name) for name in entry["stream"]}
    query = {HeadId.parse(name): take("query", name, 2) for name in entry["query"]}
    reads = tuple(HeadId.parse(name) for name in entry["reads"])
    if not (scale or shift or stream or query or reads):
        raise BadInput("it changes no head.")
    return Recipe(known["intervention"], scale, shift, stream, query, reads, known["when"])


def _layer(name: str) -> tuple[str, int]:
    stack, _, number = name.partition(":")
    if not number.isdigit():
        raise BadInput(f"'{name[:60]}' is no layer.")
    return stack, int(number)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
