"""`headatlas papers runs`: which papers of the list can be run here, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, write_or_print


def runs(
    out: Annotated[Path | None, typer.Argument(help="File to write; printed where none is given.")] = None,
    data: Data = None,
) -> None:
    """Write for each paper of the list what runs, by which command and what differs, or why it does not run.

    Example: headatlas papers runs papers.md
    """
    from headatlas.catalogue import load
    from headatlas.catalogue.export.what_runs import markdown

    write_or_print(markdown(load(data)), out)
