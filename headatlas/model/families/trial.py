"""Which model families work, tried by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headatlas.errors import BadInput
from headatlas.model.families import support_table, tiny_models
from headatlas.model.families.support_table import Row


def families(families: Sequence[str] | None = None, *, out: str | Path | None = None) -> list[Row]:
    """Try a tiny model of each family named, or of every known one: which work, how, and which are refused and why.

    out: a file for the page (Markdown), which holds all families. Raises BadInput where it is asked for with names,
    StoreError, UnknownName.
    """
    if out is not None and families:
        raise BadInput("The page holds all families.", "Leave the names or --out away.")
    chosen = [tiny_models.family(name) for name in families] if families else tiny_models.all_families()
    found = support_table.rows(chosen)
    if out is not None:
        support_table.write(Path(out), found)
    return found
