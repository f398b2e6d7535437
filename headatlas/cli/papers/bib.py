"""`headatlas papers bib`: BibTeX."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, Out, print_text
from headatlas.render.escape import say


def bib(
    papers: Annotated[list[str] | None, typer.Argument(help="Papers by id, title or arXiv id; all without.")] = None,
    out: Out = None,
    data: Data = None,
) -> None:
    """Write papers as BibTeX for BibTeX and biber; the key of an entry is the paper's id.

    Example: headatlas papers bib olsson-2022-induction-heads --out heads.bib
    """
    from headatlas.catalogue import load
    from headatlas.catalogue.export.bibtex import bibtex, chosen
    from headatlas.catalogue.files.output import write_text

    text = bibtex(chosen(load(data), papers or ()))
    if out is None:
        print_text(text)
    else:
        write_text(out, text)
        say(f"Written: {out}")
