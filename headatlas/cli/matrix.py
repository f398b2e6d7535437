"""`headatlas matrix`: which model families work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headatlas.cli import _options as option


def matrix(
    families: Annotated[list[str] | None, typer.Argument(help="Families to try; all by default.")] = None,
    as_json: option.Json = False,
    out: Annotated[Path | None, typer.Option(help="Write the page (Markdown) to this file; all families.")] = None,
) -> None:
    """Try a tiny model of every known family: which work, how, and which are refused and why.

    Example: headatlas matrix llama falcon mpt
    """
    from headatlas.errors import BadInput
    from headatlas.model.families import support_table as trial
    from headatlas.model.families import tiny_models

    if out is not None and families:
        raise BadInput("The page holds all families.", "Leave the names or --out away.")
    chosen = [tiny_models.family(name) for name in families] if families else list(tiny_models.all_families())
    found = trial.rows(chosen)
    if out is not None:
        trial.write(out, found)
        print(f"{len(found)} families in {out}")
    elif as_json:
        print(json.dumps(trial.as_json(found), ensure_ascii=False))
    else:
        for columns, lines in trial.halves(found):
            if lines:
                shown = Table(*columns, box=None, pad_edge=False)
                for line in lines:
                    shown.add_row(*(cell(line) for cell in columns.values()))
                Console().print(shown)
