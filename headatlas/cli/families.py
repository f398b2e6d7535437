"""`headatlas families`: which model families work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headatlas.cli import _options as option


def families(
    families: Annotated[list[str] | None, typer.Argument(help="Families to try; all by default.")] = None,
    as_json: option.Json = False,
    out: Annotated[Path | None, typer.Option(help="Write the page (Markdown) to this file; all families.")] = None,
) -> None:
    """Try a tiny model of every known family: which work, how, and which are refused and why.

    Example: headatlas families llama falcon mpt
    """
    import headatlas as ha
    from headatlas.model.families import support_table

    found = ha.families(families, out=out)
    if out is not None:
        print(f"{len(found)} families in {out}")
    elif as_json:
        print(json.dumps(support_table.as_json(found), ensure_ascii=False))
    else:
        for columns, lines in support_table.halves(found):
            if lines:
                shown = Table(*columns, box=None, pad_edge=False)
                for line in lines:
                    shown.add_row(*(text_of(line) for text_of in columns.values()))
                Console().print(shown)
