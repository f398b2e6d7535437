"""`headatlas papers show`: everything the catalogue knows of one entry."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, Json, print_json


def show(
    name: Annotated[str, typer.Argument(help="Id, name or alias; kind/id where two entries share an id.")],
    data: Data = None,
    json: Json = False,
) -> None:
    """Show a paper, head type, method, benchmark, circuit, claim or stage.

    Example: headatlas papers show "S-Inhibition Head"
    """
    from headatlas.catalogue import load
    from headatlas.catalogue.describe import find, page, record

    catalogue = load(data)
    kind, id_ = find(catalogue, name)
    if json:
        print_json(record(catalogue, kind, id_))
        return
    from headatlas.cli.papers._layout import show_page
    from headatlas.render.console import console

    console().print(show_page(page(catalogue, kind, id_)))
