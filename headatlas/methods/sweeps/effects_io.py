"""Results of sweeps as files: `effects.json`, `effects.parquet` (a row per change), `examples.parquet` (per change and example)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headatlas.errors import StoreError
from headatlas.heads import HeadId
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.store import clean, read_json, write_json, write_table

SCHEMA = "headatlas/effects/1"


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
    data = read_json(folder / "effects.json")
    if data.get("schema") != SCHEMA:
        raise StoreError(f"{folder / 'effects.json'} is not a {SCHEMA} file.", "Run the sweep again.")
    try:
        long = pq.read_table(folder / "examples.parquet").to_pydict()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{folder / 'examples.parquet'} cannot be read ({error}).", "Run the sweep again.") from error
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
