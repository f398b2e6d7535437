"""`headatlas papers render`: the awesome list as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, write_or_print


def render(
    out: Annotated[Path | None, typer.Argument(help="File to write; printed where none is given.")] = None,
    data: Data = None,
) -> None:
    """Write the list as one Markdown page: taxonomy, a table a year, head types. The same data give the same bytes.

    Example: headatlas papers render AWESOME.md
    """
    from headatlas.catalogue import load
    from headatlas.catalogue.export.render_markdown import markdown

    write_or_print(markdown(load(data)), out)
