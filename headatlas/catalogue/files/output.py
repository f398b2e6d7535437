"""Writes a text to a file so that the file is either whole or untouched."""

from __future__ import annotations

from pathlib import Path

from headatlas import store
from headatlas.errors import StoreError


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name in the same folder, then rename; raises StoreError that says what to do."""
    if path.is_dir():
        raise StoreError(f"'{path}' is a folder.", "Name a file in it.")
    if not path.parent.is_dir():
        raise StoreError(f"There is no folder '{path.parent}' to write '{path.name}' into.", "Create it first.")
    store.write_text(path, text, "Choose another place, or free some space.")
