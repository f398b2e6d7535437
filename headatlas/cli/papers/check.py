"""`headatlas papers check`: is every file of the catalogue in order?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, Json, print_json, print_text
from headatlas.render.escape import say


def check(
    data: Data = None,
    links: Annotated[bool, typer.Option("--links", help="Also visit the links (network; takes a minute).")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema for editors and stop.")] = False,
    json: Json = False,
) -> None:
    """List every fault of the data with file, line and what would be right; exit code 1 if there is one.

    Example: headatlas papers check --data my-catalogue
    """
    from headatlas.catalogue.check import check as check_all
    from headatlas.catalogue.check import json_schema

    if schema:
        print_text(json_schema())
        return
    catalogue, problems = check_all(data)
    unclear: list[str] = []
    if links:
        from headatlas.catalogue.curation.web_links import check_links

        visited = check_links(catalogue)
        problems, unclear = sorted({*problems, *visited.problems}), visited.unclear
    if json:
        print_json({"problems": [asdict(problem) for problem in problems], "unclear_links": unclear})
    else:
        for problem in problems:
            say(problem)
        for link in unclear:
            say(f"not known to be alive: {link}")
        what = f"{len(catalogue.papers)} papers, {len(catalogue.heads)} head types, {len(catalogue.claims)} claims"
        say(f"{len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'} in {what}.")
    if problems:
        raise typer.Exit(1)
