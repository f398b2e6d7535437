"""Files and folders that are whole or not there: written under a temporary name, errors that name the place.

Everything that headatlas writes for keeps goes through `whole_file` or `whole_folder`; nothing else renames.

Work that takes long keeps what it has done in a folder beside its result, `<name>.partial`; an interrupted run goes on
from there, and the result gets its name when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headatlas import reading
from headatlas.errors import StoreError
from headatlas.reading import Source

if TYPE_CHECKING:  # a program that writes a text loads no tables and arrays
    from numpy.typing import NDArray


def clean(value: Any, digits: int | None = None) -> Any:
    """The value with NaN and infinities as None, ready for JSON; floats rounded to `digits` places where asked."""
    if isinstance(value, float):
        return (value if digits is None else round(value, digits)) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): clean(item, digits) for key, item in value.items()}
    return [clean(item, digits) for item in value] if isinstance(value, list | tuple) else value


_LARGEST = 256 << 20  # bytes of a file of a run: scores of 250 examples by 5,000 heads are about 50 MB
_SPACE = "Choose another folder with --out, or free some space."


@contextlib.contextmanager
def writing(place: Path, hint: str = _SPACE) -> Iterator[None]:
    """Turn what can go wrong while writing into a StoreError that names the place; `hint` says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{place} cannot be written: {error.strerror or error}.", hint) from error


@contextlib.contextmanager
def whole_file(path: Path, hint: str = _SPACE) -> Iterator[Path]:
    """A temporary path beside `path` to write one file to; it becomes `path` when all went well, and is gone otherwise.

    Until then `path` is what it was before. Raises StoreError with `hint` where it cannot be written.
    """
    half = path.with_name(f"{path.name}.{os.getpid()}.half")  # two programs may write the same file at once
    with writing(path, hint):
        try:
            yield half
            with half.open("rb+") as file:
                os.fsync(file.fileno())  # a power cut must not leave the name without its content
            os.replace(half, path)
        except BaseException:
            with contextlib.suppress(OSError):
                half.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def whole_folder(target: Path, half: Path) -> Iterator[Path]:
    """The new folder `half` to write into, which becomes `target` when all went well and is gone otherwise.

    What an interrupted attempt left at `half` goes first. Errors of the system pass: the caller says what they mean.
    """
    if half.exists():
        shutil.rmtree(half)
    try:
        half.mkdir(parents=True)
        yield half
        os.replace(half, target)
    finally:
        shutil.rmtree(half, ignore_errors=True)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes `target` when all went well, and is gone otherwise.

    Raises StoreError where `target` exists or cannot be written.
    """
    if target.exists():
        raise StoreError(f"{target} exists already.", "Name a folder that does not exist yet.")
    with writing(target), whole_folder(target, target.with_name(f".{target.name}.half-{os.getpid()}")) as half:
        yield half


def give_name(place: Path, final: Path) -> None:
    """Call the folder of finished work by its final name; an empty folder of that name gives way. Raises StoreError."""
    with writing(final):
        if final.is_dir() and not any(final.iterdir()):
            final.rmdir()
        os.replace(place, final)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put `fresh` in the place of `folder`; what was there is gone only once the new one stands. Errors of the system pass."""
    if not folder.exists() or not any(folder.iterdir()):
        os.replace(fresh, folder)
        return
    old = fresh.with_name(f"{fresh.name}.old")
    os.replace(folder, old)
    try:
        os.replace(fresh, folder)
    except BaseException:
        os.replace(old, folder)
        raise
    shutil.rmtree(old)


def write_text(path: Path, text: str, hint: str = _SPACE) -> None:
    """Write a text as UTF-8 with plain newlines, whole or not at all. Raises StoreError."""
    with whole_file(path, hint) as half:
        half.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any, digits: int | None = None) -> None:
    """Write JSON, whole or not at all; floats rounded to `digits` places where asked. Raises StoreError."""
    write_text(path, json.dumps(clean(value, digits), indent=1, ensure_ascii=False, allow_nan=False))


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a Parquet table, whole or not at all. Raises StoreError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with whole_file(path) as half:
        pq.write_table(pa.table(dict(columns)), half, compression="zstd")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays (.npz), whole or not at all. Raises StoreError."""
    import numpy as np

    with whole_file(path) as half, half.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def of_run(path: Path, again: str = "run") -> Source:
    """A file that headatlas itself wrote: what to do where it is bad is to `again` (run, mine)."""
    return Source(path, f"Remove {path.parent} and {again} again.", largest=_LARGEST)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises StoreError naming the file."""
    return reading.read_json(of_run(path))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `write_arrays` wrote. Raises StoreError naming the file."""
    return reading.read_arrays(of_run(path))


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
    from filelock import FileLock, Timeout

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
        for half in place.glob("*.half"):  # a killed program's: who holds the lock writes nothing yet
            half.unlink()
        pieces = [item for item in place.iterdir() if item != known]
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
