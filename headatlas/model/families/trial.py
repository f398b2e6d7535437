"""Which model families work, tried by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

from headatlas.errors import BadInput
from headatlas.model.families import every_class as classes
from headatlas.model.families import support_table, tiny_models
from headatlas.model.families.every_class import Answer
from headatlas.model.families.support_table import Row


@overload
def families(
    families: Sequence[str] | None = None, *, every_class: Literal[False] = False, out: str | Path | None = None
) -> list[Row]: ...


@overload
def families(
    families: Sequence[str] | None = None, *, every_class: Literal[True], out: str | Path | None = None
) -> list[Answer]: ...


def families(
    families: Sequence[str] | None = None, *, every_class: bool = False, out: str | Path | None = None
) -> list[Row] | list[Answer]:
    """Try a tiny model of each family named, or of every known one: which work, how, and which are refused and why.

    every_class: in place of the families with recipes, the classes of transformers that read text (`LlamaForCausalLM`), each
    built by its configuration's own field names; about half a second each. out: a file for the page (Markdown), which holds
    all families, and all classes where they are tried. Raises BadInput where it is asked for with names, StoreError,
    UnknownName.
    """
    if out is not None and families:
        raise BadInput("The page holds all families.", "Leave the names or --out away.")
    answers = list(classes.answers(classes.chosen(families or ()))) if every_class else []
    if every_class and out is None:
        return answers
    chosen = [tiny_models.family(name) for name in families] if families else tiny_models.all_families()
    found = support_table.rows(chosen)
    if out is not None:
        support_table.write(Path(out), found, classes.section(answers) if every_class else "")
    return answers if every_class else found
