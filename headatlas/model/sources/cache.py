"""The cache folder: models fetched or converted once, whole or not at all, safe for several programs at once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
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


def fill(
    home: Path,
    entry: str,
    make: Callable[[Path], dict[str, Any]],
    progress: Progress,
    *,
    current: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> tuple[Path, dict[str, Any]]:
    """The folder and manifest of cache entry `entry`; where it is missing, `make(folder)` fills it and returns facts.

    current: whether an entry with this manifest is as `make` would make it today; others are made again.
    `make` writes into a folder beside the entry, which takes the entry's name only when its manifest is written, so
    that an interrupted or failed run leaves no entry. A lock lets one program make it while the others wait.
    """
    target = home / "models" / entry
    manifest = read_manifest(target)
    if manifest is not None and current(manifest):
        return target, manifest
    with writing_to(home):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f"{entry}.lock"))
        with _held(lock, entry, progress):
            manifest = read_manifest(target)  # another program may have finished it while we waited
            if manifest is not None and current(manifest):
                return target, manifest
            # What a killed program left at `.unfinished` may go: nobody else can be writing, we hold the lock.
            with whole_folder(target, target.with_name(f"{entry}.unfinished")) as unfinished:
                facts = make(unfinished)
                manifest = {"schema": _SCHEMA, **facts, "files": _sizes(unfinished)}
                text = json.dumps(manifest, indent=2) + "\n"
                (unfinished / MANIFEST).write_text(text, encoding="utf-8")
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

    Remembered in the cache folder by path, size and time of change, so that a file is read once.
    """
    known = {path.name: _remembered(path, home) for path in files}
    if len(known) == 1:
        return next(iter(known.values()))
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(known.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _remembered(path: Path, home: Path) -> str:
    path = path.resolve()
    stat = path.stat()
    key = {"path": str(path), "size": stat.st_size, "changed": stat.st_mtime_ns}
    note = home / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    try:
        found = read_json(Source(note))
        if {name: found.get(name) for name in key} == key:
            return str(found["sha256"])
    except (StoreError, KeyError):
        pass  # not remembered, or the note is damaged: read the file again
    value = hash_file(path)
    with contextlib.suppress(OSError, StoreError):  # a cache folder that cannot be written costs time, not the result
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps({**key, "sha256": value}))
    return value
