"""`headatlas list WHAT`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from headatlas.cli import _options as option
from headatlas.cli._printing import print_json
from headatlas.render.console import console

library = "headatlas.list_known"
# What fits a terminal; --json has everything.
SHOWN = {
    "detectors": ("name", "head_type", "task", "calibrated", "what"),
    "tasks": ("name", "metric", "what"),
    "models": ("name", "what"),
    "head-types": ("name", "stage", "detectors", "title"),
    "methods": ("name", "category", "operation"),
}


def list_(
    what: Annotated[str, typer.Argument(help="detectors, tasks, models, head-types or methods.")],
    as_json: option.Json = False,
) -> None:
    """List what headatlas knows: detectors, tasks, models, head types, methods.

    Example: headatlas list detectors
    """
    import headatlas as ha

    rows = ha.list_known(what)
    if as_json:
        print_json({what.replace("-", "_"): rows})
        return
    shown = SHOWN[what]
    table = Table(box=None, pad_edge=False)
    for name in shown:
        table.add_column(name, no_wrap=name == "name", overflow="fold")
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in shown))
    console().print(table)
