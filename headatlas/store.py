"""Files that are whole or not there: JSON and tables written under a temporary name, errors that name the place."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headatlas.errors import StoreError


def clean(value: Any, digits: int | None = None) -> Any:
    """The value with NaN and infinities as None, ready for JSON; floats rounded to `digits` places where asked."""
    if isinstance(value, float):
        return (value if digits is None else round(value, digits)) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): clean(item, digits) for key, item in value.items()}
    return [clean(item, digits) for item in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what can go wrong while writing into a StoreError that names the place."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{place} cannot be written: {error.strerror or error}.",
            "Choose another folder with --out, or free some space.",
        ) from error


def write_json(path: Path, value: Any, digits: int | None = None) -> None:
    """Write JSON under a temporary name and rename it. Raises StoreError."""
    with writing(path):
        half = path.with_name(path.name + ".half")
        text = json.dumps(clean(value, digits), indent=1, ensure_ascii=False, allow_nan=False)
        half.write_text(text, encoding="utf-8")
        os.replace(half, path)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a Parquet table under a temporary name and rename it. Raises StoreError."""
    with writing(path):
        half = path.with_name(path.name + ".half")
        pq.write_table(pa.table(dict(columns)), half, compression="zstd")
        os.replace(half, path)


def read_json(path: Path) -> dict[str, Any]:
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
