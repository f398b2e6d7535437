"""Results of sweeps as files: `effects.json`, `effects.parquet` (a row per change), `examples.parquet` (per change and example)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from headatlas.heads import HeadId
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.reading import (
    Count,
    Head,
    Layer,
    Name,
    Number,
    Open,
    Record,
    checked,
    demand_schema,
    read_json,
    read_table,
)
from headatlas.store import clean, of_run, write_json, write_table

SCHEMA = "headatlas/effects/1"


class _Metric(Record):
    changed_run: Number = None
    other_run: Number = None


class _Effect(Record):
    heads: list[Name]
    stack: Name
    layer: Layer
    head: Head
    position: Name
    effect: Number = None
    low: Number = None
    high: Number = None
    p: Number = None
    q: Number = None
    share: Number = None
    share_low: Number = None
    share_high: Number = None
    estimate: Number = None


class _File(Record):
    schema_: str = Field(alias="schema")
    run: Open
    kind: Name
    metric: _Metric
    n_examples: Annotated[int, Field(ge=1, le=10_000_000)]
    positions: Annotated[list[Name], Field(min_length=1, max_length=100_000)]
    measured: Count
    unmeasured: Count
    agreement: Number
    effects: Annotated[list[_Effect], Field(max_length=5_000_000)]


def data_of(found: HeadEffects) -> dict[str, Any]:
    """The content of effects.json: facts, the metric without change, and one row per change, largest effect first."""
    mean = lambda values: float(np.mean(values)) if values is not None else None  # noqa: E731
    lines = sorted(found.summary(), key=lambda line: (math.isnan(line.effect), -abs(line.effect)))
    names = ("effect", "low", "high", "p", "q", "share", "share_low", "share_high", "estimate")
    data = {
        "schema": SCHEMA,
        "run": dict(found.facts),
        "kind": found.kind,
        "metric": {"changed_run": mean(found.base), "other_run": mean(found.other)},
        "n_examples": len(found.base),
        "positions": list(found.positions),
        "measured": int(found.measured.sum()),
        "unmeasured": found.unmeasured,
        "agreement": found.agreement(),
        "effects": [
            {
                "heads": [str(head) for head in line.heads],
                "stack": line.head.stack,
                "layer": line.head.layer,
                "head": line.head.head,
                "position": line.position,
                **{name: getattr(line, name) for name in names},
            }
            for line in lines
        ],
    }
    return clean(data)


def write(found: HeadEffects, folder: Path) -> None:
    """Write the files of a result into a folder."""
    data = data_of(found)
    rows = data["effects"]
    table = {name: [row[name] for row in rows] for name in rows[0] if name != "heads"}
    table["heads"] = [" ".join(row["heads"]) for row in rows]
    n, n_sets, n_positions = found.values.shape
    example, head_set, position = (
        axis.ravel() for axis in np.meshgrid(range(n), range(n_sets), range(n_positions), indexing="ij")
    )
    long = {
        "example": example,
        "heads": [" ".join(map(str, found.head_sets[i])) for i in head_set],
        "position": [found.positions[j] for j in position],
        "value": found.values.ravel(),
        "unchanged": found.base[example],
        "other": found.other[example] if found.other is not None else np.full(len(example), np.nan),
    }
    write_table(folder / "effects.parquet", table)
    write_table(folder / "examples.parquet", long)
    write_json(folder / "effects.json", data)


def load(folder: str | Path) -> HeadEffects:
    """Read a finished sweep. Raises StoreError."""
    folder = Path(folder)
    source = replace(of_run(folder / "effects.json"), hint="Run the sweep again.")
    table = replace(source, path=folder / "examples.parquet")
    data = read_json(source)
    demand_schema(data, SCHEMA, source)
    data = checked(data, _File, source)
    long = read_table(table, {"heads": "text", "value": "number", "unchanged": "number", "other": "number"})
    with table.explained():
        return _made(data, long)


def _made(data: Mapping[str, Any], long: Mapping[str, Sequence[Any]]) -> HeadEffects:
    """The result that effects.json and the rows of examples.parquet describe. Raises ValueError or KeyError."""
    n, positions = data["n_examples"], tuple(data["positions"])
    values = np.array(long["value"], dtype=np.float64).reshape(n, -1, len(positions))
    head_sets = tuple(dict.fromkeys(long["heads"]))
    step = len(head_sets) * len(positions)
    base, other = (np.array(long[name][::step], dtype=np.float64) for name in ("unchanged", "other"))
    estimates = {(" ".join(row["heads"]), row["position"]): row["estimate"] for row in data["effects"]}
    known = [[estimates[head_set, position] for position in positions] for head_set in head_sets]
    estimate = np.array([[np.nan if x is None else x for x in row] for row in known], dtype=np.float64)
    return HeadEffects(
        data["kind"],
        tuple(tuple(HeadId.parse(head) for head in head_set.split()) for head_set in head_sets),
        positions,
        values,
        base,
        None if bool(np.isnan(other).all()) else other,
        None if bool(np.isnan(estimate).all()) else estimate,
        data["run"],
    )
