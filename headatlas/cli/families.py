"""`headatlas families`: which model families work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from headatlas.cli import _options as option
from headatlas.cli._printing import print_json
from headatlas.render.console import console
from headatlas.render.escape import say


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
            say(f"{len(tried)} classes in {out}")
        elif as_json:
            print_json(classes.as_json(tried))
        else:
            for line in tried:
                about = " ".join(line.why.split())[:160] or ", ".join(line.mechanisms)
                say(f"{line.name:<46} {line.status:<9} {about}")
        return
    found = ha.families(families, out=out)
    if out is not None:
        say(f"{len(found)} families in {out}")
    elif as_json:
        print_json(support_table.as_json(found))
    else:
        for columns, lines in support_table.halves(found):
            if lines:
                shown = Table(*columns, box=None, pad_edge=False)
                for row in lines:
                    shown.add_row(*(text_of(row) for text_of in columns.values()))
                console().print(shown)
