"""What was replicated, as boards keep it: their schema, the rows that others hand in, and what these must hold to be shown.

A board is the JSON file of `headatlas replicate --board`. Those in `data/replications/` come by pull request; each names who
made it, the hashes of weights and texts, and the versions, so that `headatlas verify` can run it again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import Field, model_validator

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.detector_names import detector_names
from headatlas.catalogue.gather import FOLDER as DATA
from headatlas.catalogue.model_names import find_model, identity_key, model_of
from headatlas.catalogue.problem import CatalogueError, Problem, shown
from headatlas.errors import BadInput, HeadAtlasError
from headatlas.reading import Name, Number, Open, Source, Text, Written, checked, demand_schema, read_json

SCHEMA = "headatlas/replication/1"
RESULTS = ("replicated", "weakened", "not replicated", "not testable")
FOLDER = "replications"
ON_WORD = "as you say"  # how a copy was recognised that only its user says is one
_VERSIONS = ("headatlas", "torch", "transformers")
_HEADS = Annotated[list[Annotated[str, Field(pattern=r"^(?:[a-z]+:)?\d{1,4}\.\d{1,4}$")]], Field(max_length=100_000)]
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Row(Written):
    """One claim beside one detector, as `Outcome` of `headatlas.replicate` has it. run_id: in which of the model's runs."""

    claim: Name
    head_type: Name
    statement: Text
    detector: Name | None
    result: Name
    reason: Text
    claimed: _HEADS
    observed: _HEADS
    found: _HEADS
    recall: Number
    precision: Number
    p: Number
    low: Number
    high: Number
    acting: _HEADS
    refuted: _HEADS
    command: Text
    versions: dict[str, Name] = Field(default_factory=dict)
    created: Name | None = None
    run_id: Name | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Row:
        claimed, observed, found = set(self.claimed), set(self.observed), set(self.found)
        if self.result not in RESULTS:
            raise ValueError(f"result is one of {', '.join(RESULTS)}")
        if self.recall is None:
            return self
        if found != claimed & observed:
            raise ValueError("found holds the heads that are both claimed and observed, and no others")
        if not {*self.acting, *self.refuted} <= found or {*self.acting} & {*self.refuted}:
            raise ValueError("acting and refuted hold heads of found, none of them in both")
        if not claimed or not math.isclose(self.recall, len(found) / len(claimed), abs_tol=1e-6):
            raise ValueError("recall is the share of the claimed heads that were found")
        return self


class Replicated(Written):
    """A model's rows. run: facts of the newest run; runs: of each by its id, as far as they are kept; by: who made them."""

    model: Name
    key: Name
    run: dict[str, Any]
    outcomes: Annotated[list[Row], Field(max_length=100_000)]
    runs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    by: Name | None = None


class Board(Written):
    """The whole file."""

    schema_: str = Field(alias="schema")
    models: Annotated[list[Replicated], Field(max_length=10_000)]


class _Printed(Open):
    """What `headatlas replicate --json` prints: one model's rows and their run."""

    model: Name
    run: dict[str, Any]
    outcomes: Annotated[list[Row], Field(max_length=100_000)]


@dataclass(frozen=True)
class Replication:
    """A row that is shown, with the model and the facts of the run that it is of."""

    file: str
    by: str | None
    model: str
    run: Mapping[str, Any]
    row: Mapping[str, Any]

    @property
    def shown(self) -> str:
        """The model for readers: of a folder only its own name, as where it lies is nobody's business."""
        return str(
            self.run.get("recognised_as") or PureWindowsPath(self.model).name if _is_place(self.model) else self.model
        )


def read_board(source: Source) -> list[dict[str, Any]]:
    """The models of a board, or the one of what `headatlas replicate --json` printed. Raises source.error."""
    data = read_json(source)
    if isinstance(data, dict) and "schema" not in data and "outcomes" in data:
        one = checked(data, _Printed, source)
        return [{**one, "key": identity_key(one["model"]), "runs": {}, "by": None}]
    demand_schema(data, SCHEMA, source)
    found: list[dict[str, Any]] = checked(data, Board, source)["models"]
    return found


def run_of(model: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the run that a row is of."""
    known: dict[str, Any] = model["runs"].get(row["run_id"], model["run"])
    return known


def replications(catalogue: Catalogue, folder: Path | None = None) -> list[Replication]:
    """The rows that others handed in to the catalogue in `folder` (ours by default). Raises CatalogueError for the first fault."""
    faults = list(problems(catalogue, folder))
    if faults:
        raise CatalogueError(sorted(faults))
    return [
        Replication(path.name, one["by"], one["model"], run_of(one, row), row)
        for path in _files(folder)
        for one in read_board(_source(path))
        for row in one["outcomes"]
    ]


def problems(catalogue: Catalogue, folder: Path | None = None) -> Iterator[Problem]:
    """What is wrong with the files of rows that others handed in, by file."""
    for path in _files(folder):
        file = shown(path)
        if path.suffix != ".json" or path.is_symlink() or not path.is_file():
            yield Problem(file, 1, f"'{path.name}' is not a .json file.", "Only boards belong into replications/.")
            continue
        try:
            models = read_board(_source(path))
        except HeadAtlasError as error:
            yield Problem(file, 1, error.message, error.hint or "")
            continue
        for one in models:
            for wrong, right in _of_model(catalogue, one):
                yield Problem(file, 1, f"{one['model']}: {wrong}", right)


def _of_model(catalogue: Catalogue, one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not one["by"]:
        yield "nobody is named who made it.", "Write it with --by NAME."
    if not one["outcomes"]:
        yield "it has no rows.", "Give rows, or leave the model out."
    for run in {id(run): run for run in (run_of(one, row) for row in one["outcomes"])}.values():
        yield from _of_run(run)
    for row in one["outcomes"]:
        for wrong, right in _of_row(catalogue, row, run_of(one, row)):
            yield f"{row['claim']}: {wrong}", right


def _of_run(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    again = "Write the board again with today's headatlas."
    if not _SHA256.fullmatch(str(run.get("sha256"))):
        yield "its run has no sha256 of the weights.", again
    if not isinstance(run.get("texts"), dict) or not all(isinstance(text, str) for text in run["texts"].values()):
        yield "its run has no hashes of the texts it was measured on.", again
    versions = run.get("versions")
    if not isinstance(versions, dict) or not all(isinstance(versions.get(name), str) for name in _VERSIONS):
        yield f"its run does not say the versions of {', '.join(_VERSIONS)}.", again
    if not all(isinstance(run.get(name), int) for name in ("n", "seed")):
        yield "its run does not say how many examples were drawn, and with which seed.", again
    if run.get("recognised_by") == ON_WORD or (run.get("known_as") and not run.get("recognised_by")):
        yield "that it is a copy of the claims' model is said, not shown.", "Use the published weights."
    shape = find_model(_meant(run))
    if shape is not None and shape.sha256 and run.get("sha256") not in shape.sha256:
        yield f"its weights are not those published as {shape.names[0]}.", "Use the published weights."


def _of_row(catalogue: Catalogue, row: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    claim = catalogue.claims.get(row["claim"])
    if claim is None:
        yield "there is no such claim.", "See: headatlas papers list claims"
        return
    if row["head_type"] != claim.head_type:
        yield f"it is on {claim.head_type}, not on {row['head_type']}.", "Write the board again."
    if _bare(row["claimed"]) != _bare(head.head for head in claim.heads):
        yield "the claim names other heads.", "Write the board again."
    if model_of(claim) != identity_key(_meant(run)):
        yield f"the claim is on {claim.model}, not on {_meant(run)}.", "Leave the row out."
    if row["detector"] is not None and row["detector"] not in detector_names().get(claim.head_type, ()):
        yield f"no detector '{row['detector']}' measures {claim.head_type}.", "Write the board again."


def _meant(run: Mapping[str, Any]) -> str:
    """The model of the literature that a run was on: a copy in a folder has another name."""
    return str(run.get("recognised_as") or run.get("known_as") or run.get("model"))


def _bare(heads: Iterable[str]) -> set[str]:
    """Heads without their stack, which papers on encoders do not name."""
    return {head.rpartition(":")[2] for head in heads}


def _is_place(model: str) -> bool:
    return model.startswith((".", "~")) or PurePosixPath(model).is_absolute() or "\\" in model


def _files(folder: Path | None) -> list[Path]:
    """What lies in the folder of rows, but for its README and hidden files; nothing where there is none."""
    home = (DATA if folder is None else Path(folder)) / FOLDER
    if not home.is_dir():
        return []
    return sorted(path for path in home.iterdir() if path.name != "README.md" and not path.name.startswith("."))


def _source(path: Path) -> Source:
    return Source(path, "Take the file out, or write the board again.", BadInput)
