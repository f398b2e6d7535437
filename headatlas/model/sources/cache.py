"""The cache folder: models fetched or converted once, whole or not at all, safe for several programs at once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

from headatlas.errors import SourceError, StoreError
from headatlas.progress import Progress
from headatlas.reading import Source, read_json
from headatlas.store import whole_folder, write_text

MANIFEST = "source.json"
_SCHEMA = "headatlas/source/1"
# What the operating system says when a folder cannot take what we write.
_UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.EEXIST,
}
_CHUNK = 1 << 22
_TICK = 2_000_000_000  # nanoseconds: the coarsest clock of a file system in use (FAT)


def home_folder(home: Path | None = None) -> Path:
    """The cache folder: `home`, else the environment's HEADATLAS_HOME, else ~/.cache/headatlas."""
    return Path(home or os.environ.get("HEADATLAS_HOME") or "~/.cache/headatlas").expanduser().absolute()


@contextlib.contextmanager
def writing_to(folder: Path, variable: str = "HEADATLAS_HOME") -> Iterator[None]:
    """Turn a full disk or a forbidden folder into a SourceError that names the cache folder and what sets it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = error.errno if isinstance(error, OSError) else _code_of(error)
        if code not in _UNWRITABLE:
            raise
        hint = f"Free some space, or set {variable} to a folder that can be written."
        raise SourceError(f"The cache folder {folder} cannot be written: {os.strerror(code)}.", hint) from error


def _code_of(error: SafetensorError) -> int | None:
    """The system's error number, which safetensors only gives in its text."""
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished cache entry, or None where the entry is absent, unfinished or has been damaged."""
    try:
        manifest = read_json(Source(folder / MANIFEST))
        sizes = {name: (folder / name).stat().st_size for name in manifest["files"]}
    except (StoreError, OSError, ValueError, KeyError, TypeError):
        return None
    whole = manifest.get("schema") == _SCHEMA and sizes == manifest["files"]
    return dict(manifest) if whole else None


def _as_made(folder: Path, manifest: Mapping[str, Any], home: Path) -> bool:
    """Whether each file of an entry still holds what was written; read once for each state of the file (`remembered`).

    A manifest of before has no hashes. It gets those of the files as they are, since there is nothing to compare them with
    but, for files that were fetched and not converted, what was published.
    """
    found = {name: remembered(folder / name, home) for name in manifest["files"]}
    known = manifest.get("hashes")
    if known is None:
        raw = manifest.get("raw") or {}
        known = {name: raw.get(name, value) for name, value in found.items()}
        with contextlib.suppress(OSError, StoreError):  # a cache that cannot be written is looked at again next time
            write_text(folder / MANIFEST, _manifest_text({**manifest, "hashes": known}))
    return bool(known == found)


def _manifest_text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2) + "\n"


def fill(
    home: Path,
    entry: str,
    make: Callable[[Path], dict[str, Any]],
    progress: Progress,
    *,
    current: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> tuple[Path, dict[str, Any]]:
    """The folder and manifest of cache entry `entry`; where it is missing, `make(folder)` fills it and returns facts.

    current: whether an entry with this manifest is as `make` would make it today; others are made again, and so are
    entries of which a file is not what was written (a disk that rots, a program that writes into the cache).
    `make` writes into a folder beside the entry, which takes the entry's name only when its manifest is written, so
    that an interrupted or failed run leaves no entry. A lock lets one program make it while the others wait.
    """
    target = home / "models" / entry

    def found() -> dict[str, Any] | None:
        manifest = read_manifest(target)
        return manifest if manifest is not None and current(manifest) and _as_made(target, manifest, home) else None

    manifest = found()
    if manifest is not None:
        return target, manifest
    with writing_to(home):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f"{entry}.lock"))
        with _held(lock, entry, progress):
            manifest = found()  # another program may have finished it while we waited
            if manifest is not None:
                return target, manifest
            if target.exists():
                progress.say(f"The copy of {entry} in the cache is damaged or of an older version; it is made again.")
            # What a killed program left at `.unfinished` may go: nobody else can be writing, we hold the lock.
            with whole_folder(target, target.with_name(f"{entry}.unfinished")) as unfinished:
                facts = make(unfinished)
                sizes = _sizes(unfinished)
                hashes = {name: hash_file(unfinished / name) for name in sizes}
                manifest = {"schema": _SCHEMA, **facts, "files": sizes, "hashes": hashes}
                (unfinished / MANIFEST).write_text(_manifest_text(manifest), encoding="utf-8")
                if target.exists():  # a damaged entry
                    shutil.rmtree(target)
    return target, manifest


@contextlib.contextmanager
def _held(lock: FileLock, entry: str, progress: Progress) -> Iterator[None]:
    try:
        lock.acquire(blocking=False)
    except TimeoutError:
        progress.say(f"Another program is fetching {entry}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def digest(files: Iterable[Path], home: Path) -> str:
    """The sha256 of one file; of several, the sha256 of the lines `sha256sum` prints for them, sorted by name.

    Remembered, so that a file is read once; see `remembered`.
    """
    known = {path.name: remembered(path, home) for path in files}
    if len(known) == 1:
        return next(iter(known.values()))
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(known.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def remembered(path: Path, home: Path) -> str:
    """The sha256 of a file, kept in the cache folder by the file's state.

    The state is more than size and time of change, which programs set as they like (`rsync -t`, `touch -r`, unpacking):
    a replaced file has another inode, and the system's own time of the last change (ctime) can be set by nobody. What was
    changed within the last moments is not remembered, since another change in the same tick of the clock would not show.
    """
    path = path.resolve()
    key = _state(path)
    note = home / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    try:
        found = read_json(Source(note))
        if {name: found.get(name) for name in key} == key:
            return str(found["sha256"])
    except (StoreError, KeyError):
        pass  # not remembered, or the note is damaged: read the file again
    value = hash_file(path)
    settled = time.time_ns() - max(key["changed"], key["status_changed"]) > _TICK
    if not settled or _state(path) != key:
        return value
    with contextlib.suppress(OSError, StoreError):  # a cache folder that cannot be written costs time, not the result
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps({**key, "sha256": value}))
    return value


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {
        "path": str(path),
        "size": stat.st_size,
        "changed": stat.st_mtime_ns,
        "status_changed": stat.st_ctime_ns,
        "device": stat.st_dev,
        "inode": stat.st_ino,
    }
