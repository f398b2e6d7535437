"""Files that are whole or not there: JSON and tables written under a temporary name, errors that name the place.

Work that takes long keeps what it has done in a folder beside its result, `<name>.partial`; an interrupted run goes on
from there, and the result gets its name when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

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


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes `target` when all went well, and is gone otherwise.

    Raises StoreError where `target` exists or cannot be written.
    """
    if target.exists():
        raise StoreError(f"{target} exists already.", "Name a folder that does not exist yet.")
    half = target.with_name(f".{target.name}.half-{os.getpid()}")
    with writing(target):
        try:
            half.mkdir(parents=True)
            yield half
            half.rename(target)
        finally:
            shutil.rmtree(half, ignore_errors=True)


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


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays (.npz) under a temporary name and rename it. Raises StoreError."""
    with writing(path):
        half = path.with_name(path.name + ".half")
        with half.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(half, path)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `write_arrays` wrote. Raises StoreError naming the file."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} is damaged ({error}).", f"Remove {path.parent} and run again.") from error


def partial_of(final: Path) -> Path:
    """Where the unfinished work lies that ends in `final`; raises StoreError where `final` is a name for what is there."""
    if final.name in ("", ".."):
        raise StoreError(f"{final} is no name for something new.", "Give one to --out, such as runs/first.")
    return final.with_name(f"{final.name}.partial")


def finished(final: Path, identity: Mapping[str, Any], file: str) -> bool:
    """Whether the folder `final` holds this very work; False where nothing is there, or an empty folder.

    identity: what decides the numbers, with an "id". file: the JSON file that a finished folder has beside run.json.
    Raises StoreError where something else is there, other work, or a damaged file.
    """
    if not _taken(final):
        return False
    run = final / "run.json"
    found = read_json(run) if run.is_file() else {}
    for name in (file, run.name):
        if not (final / name).is_file():
            raise StoreError(
                f"{final} exists and is not a run folder: it holds no {name}.", "Choose another folder with --out."
            )
    if found.get("id") != identity["id"]:
        raise StoreError(
            f"{final} holds another run ({found.get('id')}).", "Choose another folder with --out, or remove it."
        )
    read_json(final / file)
    return True


@contextlib.contextmanager
def claimed(final: Path, identity: Mapping[str, Any]) -> Iterator[bool]:
    """Have the folder of unfinished work on `final` for this program alone; yields whether other work was dropped there.

    identity: what decides the numbers, with an "id"; it is written to run.json in that folder before anything else. What
    work with the same id left there stays, what belongs to another id is removed. The lock file beside the folder goes at
    the end, after an error too; the folder itself is the caller's to rename or remove.
    Raises StoreError where another program has the folder, `final` is there already, the folder's run.json is missing or
    damaged, or nothing can be written.
    """
    place = partial_of(final)
    lock = FileLock(f"{place}.lock")
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                f"Another program is writing to {final} right now.", "Wait for it, or choose another place with --out."
            ) from error
    try:
        yield _own(place, final, identity)
    finally:
        # Only who holds the lock removes its file, and before letting go: a third program would lock a new file otherwise.
        with contextlib.suppress(OSError):  # a file that stays locks nobody out
            Path(lock.lock_file).unlink()
        lock.release()


def _own(place: Path, final: Path, identity: Mapping[str, Any]) -> bool:
    """Make the locked folder that of this work; whether other work was dropped."""
    if _taken(final):  # another program finished just before the lock was ours
        raise StoreError(f"{final} exists already.", "Run the same command to read it, or choose another place.")
    known = place / "run.json"
    with writing(place):
        place.mkdir(exist_ok=True)
        pieces = [item for item in place.iterdir() if item != known and item.suffix != ".half"]
    if pieces and not known.exists():
        raise StoreError(f"{place} holds no run.json, so whose files these are is not known.", "Move or remove it.")
    other = known.exists() and read_json(known).get("id") != identity["id"]
    if other:
        with writing(place):  # run.json stays to the last: what an interruption leaves here still bears the other id
            for item in pieces:
                if item.is_dir() and not item.is_symlink():
                    shutil.rmtree(item)
                else:
                    item.unlink()
    write_json(known, identity)
    return other


def _taken(final: Path) -> bool:
    """Whether something lies there; an empty folder does not count."""
    with writing(final):
        return final.exists() and not (final.is_dir() and not any(final.iterdir()))
