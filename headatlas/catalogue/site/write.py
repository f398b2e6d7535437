"""Writes the site's files into a folder: all of them or none, and never over anything that is not a site of ours."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from headatlas.errors import BadInput, StoreError
from headatlas.reading import Source, read_text
from headatlas.store import replace_folder

MARKER = ".headatlas-site"
_FIRST_LINE = "headatlas site 1"
_PATH = re.compile(r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)?")


def output_folder(out: Path) -> Path:
    """The folder that `out` names. Raises StoreError unless it is missing, empty, or a site of ours and nothing else."""
    folder = out.resolve()
    if not folder.parent.is_dir():
        raise StoreError(f"There is no folder '{out.parent}' to write '{out.name}' into.", "Create it first.")
    if folder.is_dir():
        _refuse_strangers(out, folder)
    elif folder.exists():
        raise StoreError(f"'{out}' is a file.", "Name a folder.")
    return folder


def _refuse_strangers(out: Path, folder: Path) -> None:
    """Replacing a folder must not take what somebody else has put there."""
    try:
        found = list(_files(folder))
        marker = folder / MARKER
        own = read_text(Source(marker)).splitlines() if marker.is_file() else []
    except OSError as error:
        raise StoreError(f"'{out}' cannot be read: {error}.", "Choose another folder.") from error
    if not found:
        return
    if own[:1] != [_FIRST_LINE]:
        raise StoreError(f"'{out}' is not empty and holds no site of ours.", "Name a new or an empty folder.")
    strangers = sorted({*found} - {*own, MARKER})
    if strangers:
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        raise StoreError(
            f"'{out}' holds files that are not of the site: {', '.join(strangers[:3])}{more}.",
            "Move them, or name a new folder.",
        )


def _files(folder: Path) -> Iterator[str]:
    """The paths of all files and links below the folder; links are not followed."""
    for where, folders, names in os.walk(folder):
        for name in [*names, *(name for name in folders if (Path(where) / name).is_symlink())]:
            yield (Path(where) / name).relative_to(folder).as_posix()


def write_site(out: Path, files: Mapping[str, str]) -> None:
    """Write the files beside `out` under a temporary name, then give them its place. Raises StoreError."""
    for path in files:
        if not _PATH.fullmatch(path):
            raise BadInput(f"'{path}' is no address of a page.", "Ids have small letters, digits and dashes.")
    folder = output_folder(out)
    try:
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new-"))
    except OSError as error:
        raise StoreError(f"'{out}' cannot be written: {error.strerror}.", "Choose another place.") from error
    try:
        for path, text in files.items():
            place = fresh / path
            place.parent.mkdir(exist_ok=True)
            place.write_text(text, encoding="utf-8", newline="\n")
        (fresh / MARKER).write_text("\n".join([_FIRST_LINE, *sorted(files), ""]), encoding="utf-8", newline="\n")
        umask = os.umask(0)
        os.umask(umask)
        fresh.chmod(0o777 & ~umask)  # mkdtemp's folders are for their owner alone
        replace_folder(fresh, folder)
    except OSError as error:
        raise StoreError(f"'{out}' cannot be written: {error.strerror}.", "Is the disk full?") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
