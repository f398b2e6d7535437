"""Reads every file of a catalogue folder, checks each entry against its schema, and collects the faults of the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import ValidationError

from headatlas.catalogue.catalogue import Catalogue, Place
from headatlas.catalogue.files.strict_yaml import Document, read
from headatlas.catalogue.files.wording import explain
from headatlas.catalogue.problem import CatalogueError, Problem, shown
from headatlas.catalogue.schema import (
    Benchmark,
    Claim,
    ClaimList,
    Entry,
    HeadType,
    Method,
    ModelShape,
    Paper,
    PublishedCircuit,
    Stage,
)
from headatlas.errors import BadInput

FOLDER = Path(__file__).parent / "data"
MAX_BYTES = 200_000
# Folder or file -> what an entry in it is, and the word for it.
FOLDERS: Mapping[str, tuple[type[Entry], str]] = {
    "papers": (Paper, "paper"),
    "heads": (HeadType, "head type"),
    "circuits": (PublishedCircuit, "circuit"),
    "claims": (ClaimList, "claim list"),
}
LISTS: Mapping[str, tuple[type[Entry], str]] = {
    "stages.yaml": (Stage, "stage"),
    "methods.yaml": (Method, "method"),
    "benchmarks.yaml": (Benchmark, "benchmark"),
    "models.yaml": (ModelShape, "model"),
}
E = TypeVar("E")


@dataclass
class Gathered:
    """The entries that could be read, in the order of their files, and the faults of the others."""

    entries: list[tuple[str, Entry, Place]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    # Ids whose file has a fault, and kinds whose list has one: that nothing was read there is not said twice.
    unread: set[str] = field(default_factory=set)

    def catalogue(self) -> Catalogue:
        """The catalogue of what could be read; of two entries with the same id the first stays."""
        found: dict[str, dict[str, Entry]] = {}
        places: dict[tuple[str, str], Place] = {}
        for word, entry, place in self.entries:
            for kind, id_, thing, where in _parts(word, entry, place):
                if id_ not in found.setdefault(kind, {}):
                    found[kind][id_] = thing
                    places[kind, id_] = where

        def of(word: str, kind: type[E]) -> Mapping[str, E]:
            things = {id_: thing for id_, thing in found.get(word, {}).items() if isinstance(thing, kind)}
            return MappingProxyType(things)

        return Catalogue(
            papers=of("paper", Paper),
            heads=of("head type", HeadType),
            methods=of("method", Method),
            benchmarks=of("benchmark", Benchmark),
            stages=of("stage", Stage),
            circuits=of("circuit", PublishedCircuit),
            claims=of("claim", Claim),
            shapes=of("model", ModelShape),
            places=MappingProxyType(places),
        )


def _parts(word: str, entry: Entry, place: Place) -> Iterator[tuple[str, str, Entry, Place]]:
    """The entries of one file entry: itself, or each claim of a claim list. Yields (kind, id, entry, place)."""
    if isinstance(entry, ClaimList):
        for position, claim in enumerate(entry.claims):
            yield "claim", claim.id, claim, Place(place.file, place.document, (*place.keys, "claims", position))
        yield word, entry.paper, entry, place
    else:
        yield word, entry.id, entry, place  # type: ignore[attr-defined]  # every other entry has an id


def gather(folder: Path | None = None) -> Gathered:
    """Read every file under `folder` (ours by default) and collect the faults instead of stopping at the first."""
    root = FOLDER if folder is None else Path(folder)
    if not any((root / name).exists() for name in (*FOLDERS, *LISTS)):
        wrong = f"'{root}' is not a catalogue folder." if root.is_dir() else f"There is no folder '{root}'."
        raise BadInput(wrong, f"It should hold {', '.join(FOLDERS)} and {', '.join(LISTS)}.")
    result = Gathered()
    for name, (kind, word) in FOLDERS.items():
        if (root / name).is_symlink():
            result.problems.append(
                Problem(shown(root / name), 1, "the folder is a symbolic link.", "Put the files here.")
            )
            continue
        for path in _yaml_files(root / name, result.problems):
            faults = len(result.problems)
            document = _read_file(path, result.problems)
            if document is not None:
                _take(result, kind, word, Place(shown(path), document), document.value)
            if len(result.problems) > faults:
                result.unread.add(path.stem)
    for name, (kind, word) in LISTS.items():
        faults = len(result.problems)
        document = _read_file(root / name, result.problems) if (root / name).exists() else None
        if document is not None:
            _take_list(result, kind, word, Place(shown(root / name), document))
        if len(result.problems) > faults:
            result.unread.add(word)
    return result


def _yaml_files(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """The folder's files in the order of their names; anything else in it but hidden files is a fault."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as items:
        for item in sorted(items, key=lambda item: item.name):
            path = folder / item.name
            if item.name.startswith("."):
                continue
            if not item.name.endswith(".yaml"):
                right = f"Only <id>.yaml files belong into {folder.name}/."
                problems.append(Problem(shown(path), 1, f"'{item.name}' is not a .yaml file.", right))
                continue
            yield path


def _read_file(path: Path, problems: list[Problem]) -> Document | None:
    file = shown(path)
    if path.is_symlink() or not path.is_file():
        problems.append(Problem(file, 1, "this is not a regular file.", "Put the file itself here, not a link."))
        return None
    with open(path, "rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        problems.append(
            Problem(file, 1, f"the file has more than {MAX_BYTES:,} bytes.", "An entry is a few kilobytes.")
        )
        return None
    try:
        return read(data, file)
    except CatalogueError as error:
        problems.extend(error.problems)
        return None


def _take(result: Gathered, kind: type[Entry], word: str, place: Place, value: object) -> None:
    """Check one entry against its model and add it, or its faults, to the result."""
    try:
        result.entries.append((word, kind.model_validate(value), place))
    except ValidationError as error:
        for keys, wrong, right in explain(error, kind, word):
            result.problems.append(place.problem(keys, wrong, right))


def _take_list(result: Gathered, kind: type[Entry], word: str, place: Place) -> None:
    entries = place.document.value
    if not isinstance(entries, list):
        wrong = f"a list of {word}s is expected here."
        result.problems.append(place.problem((), wrong, "Start each with '- id:'."))
        return
    for position, value in enumerate(entries):
        _take(result, kind, word, Place(place.file, place.document, (position,)), value)
