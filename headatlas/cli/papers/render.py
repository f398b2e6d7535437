"""`headatlas papers render`: the awesome list as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, print_text
from headatlas.render.escape import say


def render(
    out: Annotated[Path | None, typer.Argument(help="File to write; printed where none is given.")] = None,
    data: Data = None,
) -> None:
    """Write the list as one Markdown page: taxonomy, a table a year, head types. The same data give the same bytes.

    Example: headatlas papers render AWESOME.md
    """
    from headatlas.catalogue import load
    from headatlas.catalogue.export.render_markdown import markdown
    from headatlas.catalogue.files.output import write_text

    text = markdown(load(data))
    if out is None:
        print_text(text)
    else:
        write_text(out, text)
        say(f"Written: {out}")
