"""`headatlas circuit compare FOUND REFERENCE`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _options as option
from headatlas.cli._printing import print_json

library = "headatlas.compare_circuits"


def compare(
    found: Annotated[str, typer.Argument(help="A circuit file, or an id of the catalogue.")],
    reference: Annotated[str, typer.Argument(help="What it is compared with: a file or an id.")],
    known_as: option.KnownAs = None,
    as_json: option.Json = False,
) -> None:
    """Say how much two circuits of one model have in common: heads, heads at positions, edges.

    Example: headatlas circuit compare found.json ioi

    For Merullo et al. 2024: headatlas circuit compare ioi.json capitals.json # the paper compares IOI with colored objects, which no built-in model does
    """
    from rich.table import Table

    import headatlas as ha
    from headatlas.render.console import console

    data = ha.compare_circuits(found, reference, known_as=known_as)
    if as_json:
        print_json(data)
        return
    screen = console()
    table = Table("", "first", "second", "common", "Jaccard", "precision", "recall", box=None, pad_edge=False)
    for what in ("heads", "nodes", "edges"):
        row = data[what]
        shares = ["" if row[name] is None else f"{row[name]:.2f}" for name in ("jaccard", "precision", "recall")]
        table.add_row(what, *(str(row[name]) for name in ("first", "second", "common")), *shares)
    screen.print(f"first: {data['found']}; second: {data['reference']}", highlight=False, soft_wrap=True)
    screen.print(table)
    for name, text in (
        ("common", "in both"),
        ("only_found", "only in the first"),
        ("only_reference", "only in the second"),
    ):
        screen.print(f"{text}: {' '.join(data[name]) or 'none'}", highlight=False, soft_wrap=True)
