"""Files and folders that are whole or not there: written under a temporary name, errors that name the place.

Everything that headatlas writes for keeps goes through `whole_file` or `whole_folder`; nothing else renames.

Work that takes long keeps what it has done in a folder beside its result, `<name>.partial`; an interrupted run goes on
from there, and the result gets its name when it is whole. A program may die, and a machine lose its power, between any two
operations here: content is on the disk before its name is, and nothing that cost work is removed before what is made of
it bears its final name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
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
_LABELS = {"sha256": "weights"}  # of facts whose names in run.json say little
_HASH = re.compile(r"[0-9a-f]{12,}")


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
            _rename(half, path)
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
        _rename(half, target)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _rename(half: Path, final: Path) -> None:
    """Give a file or a folder its name, with what it holds on the disk before and the name after: a power cut leaves no
    name without its content.
    """
    for path in [half, *half.rglob("*")] if half.is_dir() else [half]:
        _sync(path)
    os.replace(half, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk; links are names, and some disks keep none."""
    folder, windows = path.is_dir(), os.name == "nt"
    if path.is_symlink() or (folder and windows):
        return
    opened = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if not (folder and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(opened)


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
    """Call the folder of finished work by its final name; an empty folder of that name gives way. Raises StoreError.

    Where that cannot be done, the work stays in `place` and the error says so.
    """
    final = _followed(final)
    with writing(final, f"What was done is kept in {place}: remove what is in the way and give the same command."):
        if final.is_dir() and not any(final.iterdir()):
            final.rmdir()
        _rename(place, final)


def _followed(final: Path) -> Path:
    """The place that a link means, so that work under way lies beside it, on the same disk; else `final` itself."""
    return Path(os.path.realpath(final)) if final.is_symlink() else final


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


def short_id(facts: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits made of facts, whatever their order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def partial_of(final: Path) -> Path:
    """Where the unfinished work lies that ends in `final`; raises StoreError where `final` is a name for what is there."""
    if final.name in ("", ".."):
        raise StoreError(f"{final} is no name for something new.", "Give one to --out, such as runs/first.")
    final = _followed(final)
    return final.with_name(f"{final.name}.partial")


def finished(final: Path, identity: Mapping[str, Any], file: str) -> bool:
    """Whether the folder `final` holds this very work; False where nothing is there, or an empty folder.

    identity: what decides the numbers, with an "id". file: the JSON file that a finished folder has beside run.json.
    Raises StoreError where something else is there, other work, or a damaged file.
    """
    if not _taken(final):
        return False
    if not final.is_dir():
        raise StoreError(f"{final} is a file.", "Choose a folder with --out.")
    run = final / "run.json"
    found = read_json(run) if run.is_file() else {}
    for name in (file, run.name):
        if not (final / name).is_file():
            raise StoreError(
                f"{final} exists and is not a run folder: it holds no {name}.", "Choose another folder with --out."
            )
    if found.get("id") != identity["id"]:
        raise StoreError(
            f"{final} holds another run ({found.get('id')}), which differs in {'; '.join(differing(found, identity))}.",
            "Choose another folder with --out, or remove it.",
        )
    read_json(final / file)
    return True


def differing(known: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """In which facts two pieces of work differ, in words: "seed (0, now 1)"; hashes and lists by name alone."""
    names = [name for name in {**known, **identity} if name not in ("id", "created", "texts")]
    names = [name for name in names if known.get(name) != identity.get(name)]
    return [_difference(name, known.get(name), identity.get(name)) for name in names] or ["id"]


def _difference(name: str, old: Any, new: Any) -> str:
    told = [str(value) for value in (old, new) if value is None or isinstance(value, str | int | float)]
    short = len(told) == 2 and not any(len(value) > 40 or _HASH.fullmatch(value) for value in told)
    return f"{_LABELS.get(name, name)} ({told[0]}, now {told[1]})" if short else _LABELS.get(name, name)


@contextlib.contextmanager
def claimed(final: Path, identity: Mapping[str, Any]) -> Iterator[list[str]]:
    """Have the folder of unfinished work on `final` for this program alone; yields in what other work, dropped there, differed.

    An empty list: none was dropped.

    identity: what decides the numbers, with an "id"; it is written to run.json in that folder before anything else. What
    work with the same id left there stays, what belongs to another id is removed. The lock file beside the folder goes at
    the end, after an error too; the folder itself is the caller's to rename or remove.
    Raises StoreError where another program has the folder, `final` is there already, the folder's run.json is missing or
    damaged, or nothing can be written.
    """
    from filelock import FileLock, Timeout

    place = partial_of(final)
    if _followed(final).is_symlink() or final.is_mount():  # a rename would fail at the end of the work
        raise StoreError(
            f"{final} cannot become a folder.", "Name a new folder inside it, or another place, with --out."
        )
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


def _own(place: Path, final: Path, identity: Mapping[str, Any]) -> list[str]:
    """Make the locked folder that of this work; in what other work differed that was dropped."""
    if _taken(final):  # another program finished just before the lock was ours
        raise StoreError(f"{final} exists already.", "Run the same command to read it, or choose another place.")
    known = place / "run.json"
    with writing(place):
        place.mkdir(exist_ok=True)
        _sync(place.parent)
        for half in place.rglob("*.half"):  # a killed program's: who holds the lock writes nothing yet
            half.unlink()
        pieces = [item for item in place.iterdir() if item != known]
    if pieces and not known.exists():
        raise StoreError(f"{place} holds no run.json, so whose files these are is not known.", "Move or remove it.")
    found = read_json(known) if known.exists() else dict(identity)
    other = differing(found, identity) if found.get("id") != identity["id"] else []
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
