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
    every_class: Annotated[
        bool, typer.Option("--every-class", help="Try every class of transformers that reads text instead; minutes.")
    ] = False,
    as_json: option.Json = False,
    out: Annotated[Path | None, typer.Option(help="Write the page (Markdown) to this file; all families.")] = None,
) -> None:
    """Try a tiny model of every known family: which work, how, and which are refused and why.

    Example: headatlas families llama falcon mpt
    """
    import headatlas as ha
    from headatlas.model.families import every_class as classes
    from headatlas.model.families import support_table

    if every_class:
        tried = ha.families(families, every_class=True, out=out)
        if out is not None:
            print(f"{len(tried)} classes in {out}")
        elif as_json:
            print(json.dumps(classes.as_json(tried), ensure_ascii=False))
        else:
            for line in tried:
                about = " ".join(line.why.split())[:160] or ", ".join(line.mechanisms)
                print(f"{line.name:<46} {line.status:<9} {about}")
        return
    found = ha.families(families, out=out)
    if out is not None:
        print(f"{len(found)} families in {out}")
    elif as_json:
        print(json.dumps(support_table.as_json(found), ensure_ascii=False))
    else:
        for columns, lines in support_table.halves(found):
            if lines:
                shown = Table(*columns, box=None, pad_edge=False)
                for row in lines:
                    shown.add_row(*(text_of(row) for text_of in columns.values()))
                Console().print(shown)
