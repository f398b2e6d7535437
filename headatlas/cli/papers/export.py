"""`headatlas papers export`: the catalogue for other programs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, Out, write_or_print
from headatlas.render.escape import say


class Format(StrEnum):
    """What can be written."""

    csv = "csv"
    json = "json"
    atom = "atom"
    parquet = "parquet"


def export(
    format: Annotated[
        Format,
        typer.Option(
            help="json: everything; csv: a paper a row; atom: a feed; parquet: a folder with a table a kind and a data card."
        ),
    ] = Format.json,
    address: Annotated[str | None, typer.Option(help="Where an Atom feed will be found on the web.")] = None,
    out: Out = None,
    data: Data = None,
) -> None:
    """Write the whole catalogue as JSON or as Parquet tables with a data card, its papers as CSV, or a feed of them as Atom.

    Example: headatlas papers export --format csv --out papers.csv
    """
    from headatlas.catalogue import load
    from headatlas.catalogue.export.atom_feed import as_atom
    from headatlas.catalogue.export.records import as_csv, as_json
    from headatlas.catalogue.export.tables import write_tables
    from headatlas.catalogue.files.boards import replications
    from headatlas.errors import BadInput

    if address is not None and format is not Format.atom:
        raise BadInput("--address is for Atom feeds.", "Add --format atom, or leave it out.")
    catalogue = load(data)
    if format is Format.parquet:
        if out is None:
            raise BadInput("Parquet tables are written into a folder.", "Add --out FOLDER.")
        write_tables(catalogue, out, replications(catalogue, data))
        say(f"Written: {out}")
        return
    writers = {
        Format.csv: as_csv,
        Format.json: lambda c: as_json(c, replications(c, data)),
        Format.atom: lambda c: as_atom(c, address=address),
    }
    write_or_print(writers[format](catalogue), out)
