"""Results of sweeps as files: `effects.json`, `effects.parquet` (a row per change), `examples.parquet` (per change and example)."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headatlas.errors import StoreError
from headatlas.heads import HeadId
from headatlas.methods.effects import HeadEffects

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


def clean(value: Any) -> Any:
    """The value with NaN and infinities as None, ready for JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list | tuple) else value


def write(found: HeadEffects, place: Path) -> None:
    """Write the files of a result into a folder."""
    data = data_of(found)
    rows = data["effects"]
    table = {name: [row[name] for row in rows] for name in rows[0] if name != "heads"}
    table["heads"] = [" ".join(row["heads"]) for row in rows]
    n, cells, spots = found.values.shape
    example, cell, spot = (axis.ravel() for axis in np.meshgrid(range(n), range(cells), range(spots), indexing="ij"))
    long = {
        "example": example,
        "heads": [" ".join(map(str, found.cells[i])) for i in cell],
        "position": [found.positions[j] for j in spot],
        "value": found.values.ravel(),
        "unchanged": found.base[example],
        "other": found.other[example] if found.other is not None else np.full(len(example), np.nan),
    }
    with writing(place):
        for name, columns in (("effects", table), ("examples", long)):
            half = place / f"{name}.half"
            pq.write_table(pa.table(columns), half, compression="zstd")
            os.replace(half, place / f"{name}.parquet")
    write_json(place / "effects.json", data)


def load(place: str | Path) -> HeadEffects:
    """Read a finished sweep. Raises StoreError."""
    place = Path(place)
    data = read(place / "effects.json")
    if data.get("schema") != SCHEMA:
        raise StoreError(f"{place / 'effects.json'} is not a {SCHEMA} file.", "Run the sweep again.")
    try:
        long = pq.read_table(place / "examples.parquet").to_pydict()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{place / 'examples.parquet'} cannot be read ({error}).", "Run the sweep again.") from error
    n, positions = data["n_examples"], tuple(data["positions"])
    values = np.array(long["value"], dtype=np.float64).reshape(n, -1, len(positions))
    cells = tuple(dict.fromkeys(long["heads"]))
    step = len(cells) * len(positions)
    base, other = (np.array(long[name][::step], dtype=np.float64) for name in ("unchanged", "other"))
    guess = {(" ".join(row["heads"]), row["position"]): row["estimate"] for row in data["effects"]}
    known = [[guess[cell, position] for position in positions] for cell in cells]
    estimate = np.array([[np.nan if x is None else x for x in row] for row in known], dtype=np.float64)
    return HeadEffects(
        data["kind"],
        tuple(tuple(HeadId.parse(head) for head in cell.split()) for cell in cells),
        positions,
        values,
        base,
        None if bool(np.isnan(other).all()) else other,
        None if bool(np.isnan(estimate).all()) else estimate,
        data["run"],
    )


def write_json(path: Path, value: Any) -> None:
    """Write JSON under a temporary name and rename it."""
    with writing(path.parent):
        half = path.with_name(path.name + ".half")
        half.write_text(json.dumps(clean(value), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        os.replace(half, path)


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises StoreError naming the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}).", f"Remove {path.parent} and run again.") from error
    if not isinstance(found, dict):
        raise StoreError(f"{path} is damaged.", f"Remove {path.parent} and run again.")
    return found


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what can go wrong while writing into a StoreError that names the place."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{place} cannot be written: {error.strerror or error}.", "Choose another folder with --out."
        ) from error
