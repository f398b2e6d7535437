"""What is kept of models that were opened and passed the self-check: one file each in the cache folder, by their key.

A file that is damaged, of another schema or under a wrong name counts as absent. Where all of them take more room than
they may, those not used for longest go.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headatlas.errors import StoreError
from headatlas.model.sources.cache import home_folder
from headatlas.store import read_arrays, write_arrays

_SCHEMA = "headatlas/opening/1"
_FACTS = "facts"  # the name of the array that holds the facts as JSON
ROOM = 1 << 25  # bytes that all files together may take


def folder() -> Path:
    """Where the files lie."""
    return home_folder() / "opened"


def recall(key: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """The facts and arrays kept under a key; None where there are none that are whole."""
    place = folder() / f"{key}.npz"
    if not place.is_file():
        return None
    try:
        arrays = read_arrays(place)
        facts = json.loads(arrays.pop(_FACTS).tobytes())
        if facts["schema"] != _SCHEMA or facts["key"] != key:
            return None
    except (StoreError, ValueError, KeyError, TypeError, EOFError):
        return None
    with contextlib.suppress(OSError):  # a folder that cannot be written
        os.utime(place)
    return facts, arrays


def keep(key: str, facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write a file, whole or not at all, and remove old ones; a folder that cannot be written costs time, not the result."""
    text = json.dumps({"schema": _SCHEMA, "key": key, **facts})
    with contextlib.suppress(OSError, StoreError):
        folder().mkdir(parents=True, exist_ok=True)
        write_arrays(folder() / f"{key}.npz", {_FACTS: np.frombuffer(text.encode(), dtype=np.uint8), **arrays})
        _make_room()


def _make_room() -> None:
    """Remove the files not used for longest, until the rest takes no more than `ROOM`."""
    found = [(file.stat(), file) for file in folder().iterdir() if file.is_file()]
    free = ROOM - sum(stat.st_size for stat, _ in found)
    for stat, file in sorted(found, key=lambda item: item[0].st_mtime):
        if free >= 0:
            break
        file.unlink(missing_ok=True)
        free += stat.st_size
