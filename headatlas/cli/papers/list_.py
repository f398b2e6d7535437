"""`headatlas papers list`: the papers, filtered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headatlas.render.escape import say

if TYPE_CHECKING:
    from headatlas.catalogue.schema import Paper

from headatlas.cli.papers._options import Data, Json, print_json


def list_(
    stage: Annotated[str | None, typer.Option(help="On heads of this stage: kr, ici, lr, ep, or its name.")] = None,
    head: Annotated[str | None, typer.Option(help="On this head type: id, name or alias.")] = None,
    method: Annotated[str | None, typer.Option(help="Using this method: id or name.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Using this benchmark: id or name.")] = None,
    year: Annotated[int | None, typer.Option(help="Of this year.")] = None,
    model: Annotated[str | None, typer.Option(help="Studying a model whose name begins so: gpt2, llama.")] = None,
    venue: Annotated[str | None, typer.Option(help="Of a venue whose name begins so: neurips, acl.")] = None,
    has_code: Annotated[bool, typer.Option("--has-code", help="With a link to the authors' code.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """List the papers that pass every filter, newest first.

    Example: headatlas papers list --stage lr --head induction-head --year 2024 --model gpt2
    """
    from headatlas.catalogue import load
    from headatlas.catalogue.export.records import paper_record
    from headatlas.catalogue.filters import Filters, select

    catalogue = load(data)
    papers = select(catalogue, Filters(stage, head, method, benchmark, year, model, venue, has_code))
    if json:
        print_json({"papers": [paper_record(catalogue, paper) for paper in papers]})
        return
    from headatlas.cli.papers._layout import listing
    from headatlas.render.console import console

    def details(paper: Paper) -> str:
        return " · ".join([", ".join(catalogue.heads[id_].name for id_ in paper.heads), paper.id])

    if papers:
        console().print(listing((str(paper.date), paper.title, details(paper)) for paper in papers))
    say(f"{len(papers)} of {len(catalogue.papers)} papers.")
