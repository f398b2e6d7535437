"""Writes a text to a file so that the file is either whole or untouched."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from headatlas.errors import StoreError


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name in the same folder, then rename; raises StoreError that says what to do."""
    if path.is_dir():
        raise StoreError(f"'{path}' is a folder.", "Name a file in it.")
    if not path.parent.is_dir():
        raise StoreError(f"There is no folder '{path.parent}' to write '{path.name}' into.", "Create it first.")
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StoreError(f"'{path}' cannot be written: {error.strerror}.", "Choose another place.") from error
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are for their owner alone
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise StoreError(f"'{path}' cannot be written: {error.strerror}.", "Is the disk full?") from error
    except BaseException:
        os.unlink(temporary)
        raise
