"""`headatlas papers search`: entries by words, best first."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, Json, print_json
from headatlas.render.escape import say


def search(
    words: Annotated[list[str], typer.Argument(help="What to look for; misspelt words are understood.")],
    limit: Annotated[int, typer.Option(min=1, help="How many entries to show.")] = 20,
    data: Data = None,
    json: Json = False,
) -> None:
    """Search papers, head types, methods, benchmarks, circuits and claims by any words, authors and aliases too.

    Example: headatlas papers search "induction hed olsson"
    """
    from headatlas.catalogue import load
    from headatlas.catalogue.search import search as search_all

    query = " ".join(words)
    found = search_all(load(data), query, limit=limit)
    if json:
        print_json({"hits": [asdict(hit) for hit in found.hits], "corrected": found.corrected})
        return
    from headatlas.cli.papers._layout import listing
    from headatlas.render.console import console

    for word, meanings in found.corrected.items():
        say(f"'{word}' is not in the catalogue; searched for: {', '.join(meanings)}.")
    if not found.hits:
        say(f"Nothing fits '{query}'.")
        return
    console().print(listing((hit.kind, hit.title, f"{hit.id} · {hit.snippet}") for hit in found.hits))
