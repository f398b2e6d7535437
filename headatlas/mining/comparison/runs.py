"""A finished run as a comparison reads it, and whether two runs measured the same things on the same texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from headatlas.atlas import Atlas
from headatlas.detector import ModelDetector
from headatlas.detector import detectors as installed
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.ops.types import Array
from headatlas.reading import Open, checked, read_json
from headatlas.reading.tables import read_table
from headatlas.registry import lookup
from headatlas.store import of_run

_COLUMNS = {
    "detector": "text", "example": "integer", "stack": "text", "layer": "integer", "head": "integer",
    "score": "number", "control": "number",
}  # fmt: skip
_SHAPE = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "stacks")


class _Facts(Open):
    """What a comparison asks of run.json; None or empty where a run of before does not say it."""

    headatlas: str | None = None
    n: int | None = None
    seed: int | None = None
    detectors: dict[str, Any] = Field(default_factory=dict)
    tasks: dict[str, Any] = Field(default_factory=dict)
    texts: dict[str, str] | None = None


@dataclass(frozen=True)
class Measurement:
    """What a run has of one detector. values, control: [example, head] in the order of `heads`, NaN where undefined.

    observed: the observed heads with their rows of atlas.json, which hold the verdicts.
    """

    name: str
    head_type: str
    task: str
    minimum_effect: float
    heads: tuple[HeadId, ...]
    values: Array
    control: Array
    observed: Mapping[HeadId, Mapping[str, Any]]

    def beside(self, other: Measurement) -> Measurement:
        """The same on no more examples than `other` has: a scan goes on, in the same order, where a head is close."""
        n = len(other.values)
        return replace(self, values=self.values[:n], control=self.control[:n])


@dataclass(frozen=True)
class FinishedRun:
    """A run folder as a comparison reads it. facts: run.json, what decides the numbers. model: of atlas.json."""

    folder: Path
    facts: Mapping[str, Any]
    model: Mapping[str, Any]
    measured: Mapping[str, Measurement]

    @classmethod
    def of(cls, atlas: Atlas) -> FinishedRun:
        """The newest run of an atlas. Raises StoreError where a file is damaged."""
        folder, data = atlas.run, atlas.data
        entries = {entry["name"]: entry for entry in data["detectors"]}
        source = of_run(folder / "run.json", "mine")
        facts = checked(read_json(source), _Facts, source)
        return cls(folder, facts, data["model"], _measured(folder / "examples.parquet", entries))

    def known(self, detector: str, *, by_texts: bool) -> dict[str, Any]:
        """What decides a detector's numbers beside the model: versions, and which texts it read.

        by_texts: by their hash; else by the tokenizer and the start token that they hang on.
        """
        task = self.measured[detector].task
        named = (
            {"texts": self.facts["texts"].get(task)}
            if by_texts
            else {"tokenizer": self.facts.get("tokenizer"), "start token": self.facts.get("bos")}
        )
        return {
            "task": task,
            "version": self.facts["detectors"].get(detector),
            "version of its task": self.facts["tasks"].get(task),
            "own source": self.facts.get("own"),
            **named,
        }


def demand_comparable(
    a: FinishedRun, b: FinishedRun, detectors: Sequence[str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """(the detectors that both runs asked of the same heads on the same texts, those left out with the reason).

    detectors: only these, each of which both must have. Raises BadInput, UnknownName.
    """
    demand_same_shape(a.model, b.model)
    differs = [name for name in ("headatlas", "n", "seed") if a.facts.get(name) != b.facts.get(name)]
    if differs:
        told = "; ".join(f"{name} ({a.facts.get(name)} and {b.facts.get(name)})" for name in differs)
        raise BadInput(f"The runs cannot be compared: they differ in {told}.", "Mine both models alike.")
    both = [name for name in a.measured if name in b.measured]
    for name in detectors or ():
        lookup({one: a.measured[one] for one in both}, name, "detector in both runs", f"Both have: {_listed(both)}.")
    asked = [name for name in both if not detectors or name in detectors]
    left = {
        name: f"only in {run.folder}"
        for run, other in ((a, b), (b, a))
        for name in run.measured
        if name not in other.measured
    }
    left |= {name: "draws its examples by what a model can do" for name in asked if not _is_paired(name)}
    chosen = [name for name in asked if name not in left]
    if not chosen:
        told = f"{a.folder} has {_listed(a.measured)}; {b.folder} has {_listed(b.measured)}"
        raise BadInput(
            f"The runs have no detector in common whose examples can be paired: {told}.",
            "Mine both models for the same detectors.",
        )
    by_texts = all(run.facts["texts"] is not None for run in (a, b))  # runs of before do not say
    for name in chosen:
        first, second = (run.known(name, by_texts=by_texts) for run in (a, b))
        other = [key for key in first if first[key] != second[key]]
        if other:
            raise BadInput(
                f"The runs cannot be compared: {name} was asked with another {' and another '.join(other)}.",
                "Mine both models alike, with one tokenizer and start token, or choose other detectors.",
            )
        if a.measured[name].heads != b.measured[name].heads:
            raise BadInput(f"The runs cannot be compared: {name} was asked of other heads.", "Mine both models alike.")
    return chosen, {} if detectors else left


def _is_paired(name: str) -> bool:
    """Whether a row of a detector is the same example for every model; one that is not installed keeps that contract."""
    found = installed().get(name)
    return not isinstance(found, ModelDetector) or found.paired


def demand_same_shape(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raise BadInput unless two models, as atlas.json describes them, have the same heads: addresses mean nothing otherwise."""
    other = [name for name in _SHAPE if _plain(a.get(name)) != _plain(b.get(name))]
    if other:
        told = "; ".join(f"{name} {_plain(a.get(name))} and {_plain(b.get(name))}" for name in other)
        raise BadInput(
            f"{a['name']} and {b['name']} have other shapes: {told}.",
            "Heads are compared by address, so give a model and what was made of it without taking heads away.",
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _listed(names: Collection[str]) -> str:
    found = list(names)
    return (", ".join(found[:3]) or "none") + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def _measured(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Measurement]:
    """The detectors of examples.parquet, whose rows stand by detector, then example, then head."""
    source = of_run(path, "mine")
    table = read_table(source, _COLUMNS)
    if any(value is None for name in list(_COLUMNS)[:5] for value in table[name]):
        raise source.bad("does not say of which detector, example and head each row is")
    names, stack = (np.array(table[name], dtype=object) for name in ("detector", "stack"))
    example, layer, place = (np.array(table[name]) for name in ("example", "layer", "head"))
    score, control = (np.array(table[name], dtype=np.float64) for name in ("score", "control"))  # null becomes NaN
    found = {}
    for name, entry in entries.items():
        rows = np.flatnonzero(names == name)
        n_heads = int((example[rows] == 0).sum())
        n, left = divmod(len(rows), max(n_heads, 1))
        first = rows[:n_heads]
        heads = tuple(HeadId(int(layer[i]), int(place[i]), str(stack[i])) for i in first)
        expected = (
            (example, np.arange(n)[:, None]),
            (stack, stack[first]),
            (layer, layer[first]),
            (place, place[first]),
        )
        whole = n_heads > 0 and not left and len(set(heads)) == n_heads
        if not whole or not all(
            np.array_equal(column[rows].reshape(n, n_heads), np.broadcast_to(ordered, (n, n_heads)))
            for column, ordered in expected
        ):
            raise source.bad(f"does not hold every head of {name} on every example, in their order")
        found[name] = Measurement(
            name=name,
            head_type=entry["head_type"],
            task=entry["task"],
            minimum_effect=float(entry["minimum_effect"] or 0.0),
            heads=heads,
            values=score[rows].reshape(n, n_heads),
            control=control[rows].reshape(n, n_heads),
            observed={HeadId(row["layer"], row["head"], row["stack"]): row for row in entry["heads"]},
        )
    return found
