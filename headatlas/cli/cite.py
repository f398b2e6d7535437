"""`headatlas cite [WHAT]...`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli._checks import Check
from headatlas.cli.papers._options import print_text
from headatlas.render.escape import say


def cite(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Detectors, tasks, methods, entries of the catalogue, run folders; none: headatlas alone."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Write the BibTeX to this file instead of printing it."), Check(check.file)
    ] = None,
) -> None:
    """Print BibTeX of headatlas and of the papers behind what was run.

    Example: headatlas cite induction ioi path atlas/smollm2-135m --out used.bib
    """
    import headatlas as ha

    text = ha.cite(*(what or ()), out=out)
    if out is None:
        print_text(text)
    else:
        say(f"Written: {out}")
