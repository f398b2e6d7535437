"""`headatlas papers bib`: BibTeX."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, Out, write_or_print


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

    write_or_print(bibtex(chosen(load(data), papers or ())), out)
