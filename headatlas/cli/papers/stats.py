"""`headatlas papers stats`: how much of what there is, and what it rests on."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli.papers._options import Data, Json, print_json
from headatlas.render.escape import say


def stats(
    top: Annotated[int, typer.Option(min=1, help="How many rows of a long table to print; --json has all.")] = 12,
    data: Data = None,
    json: Json = False,
) -> None:
    """Count papers by year, stage, head type and method, claims, and the evidence that summaries and claims rest on.

    Example: headatlas papers stats --json
    """
    from headatlas.catalogue import load
    from headatlas.catalogue.stats import stats as count

    counted = count(load(data))
    if json:
        print_json(counted)
        return
    from rich.text import Text

    from headatlas.cli.papers._layout import table
    from headatlas.render.console import console

    screen = console()
    totals = [[name.replace("_", " "), str(number)] for name, number in counted.pop("totals").items()]
    screen.print(table(["In the catalogue", ""], totals))
    for what, kinds in counted.pop("evidence").items():
        screen.print(Text(f"\nevidence of {what.replace('_', ' ')}", style="bold"))
        rows = [[kind, *map(str, counts.values())] for kind, counts in kinds.items()]
        screen.print(table(["kind", "best", "only", "named"], rows))
    for group, tables in counted.items():
        for name, counts in tables.items():
            rows = [[value, str(number)] for value, number in counts.items()]
            screen.print(Text(f"\n{group.replace('_', ' ')} by {name.replace('_', ' ')}", style="bold"))
            screen.print(table([name.replace("_", " "), "count"], rows[:top]))
            if len(rows) > top:
                say(f"and {len(rows) - top} more")
