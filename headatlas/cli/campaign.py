"""`headatlas campaign MODELS.yaml`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headatlas.choices import demand_engine
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.errors import BadInput
from headatlas.render.escape import say

if TYPE_CHECKING:
    from headatlas.mining.campaign.result import Campaign

library = ("headatlas.campaign", "headatlas.engines.choosing.engine")


def before(models: str, engine: str, workers: int | None, threads: int | None, address: str | None) -> None:
    """Raise what `model_list.read_models` does of a list, UnknownName for its tasks, BadInput for an engine."""
    from headatlas.campaigns.model_list import read_models

    demand_engine(engine, workers, threads, address)
    for one in read_models(models):
        for task in one.tasks:
            if not task.endswith(".py"):
                check.task(task)


def campaign(
    models: Annotated[str, typer.Argument(help="YAML file: models: and a list of names, each with options if wanted.")],
    out: Annotated[
        str,
        typer.Option(help="Folder for the runs and the page; the same command goes on from there."),
        Check(check.folder),
    ] = "campaign",
    engine: option.Engine = "local",
    workers: option.Workers = None,
    threads: option.Threads = None,
    address: option.Address = None,
    at_once: Annotated[
        int | None,
        typer.Option("--at-once", help="Models under way together (ray); default 2, or one for each four workers."),
        check.at_least(1, "models"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print campaign.json instead of the table.")] = False,
) -> None:
    """Mine many models, and write one page that shows their heads side by side.

    A model that fails is told and the others go on; the exit code is then 1. The same command goes on after an interruption.

    Example: headatlas campaign models.yaml --out campaigns/first
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    with Shown() as shown, ha.engine(engine, workers=workers, threads=threads, address=address):
        found = ha.campaign(models, out, at_once=at_once, progress=shown)
    if as_json:
        print_json(found.data)
    else:
        _show(found)
    if found.failed:
        names = ", ".join(one.label for one in found.failed)
        raise BadInput(
            f"{len(found.failed)} of {found.asked} models failed: {names}.", "The same command tries them again."
        )


def _show(found: Campaign) -> None:
    from rich.table import Table

    from headatlas.mining.campaign.page import COLUMNS, headline, row_of
    from headatlas.render.console import console

    screen = console()
    for line in headline(found):
        screen.print(line, soft_wrap=True)
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for one in found.models:
        if not one.error:
            table.add_row(one.label, *row_of(one))
    screen.print(table)
    say(f"Page: {(found.folder / 'index.html').resolve()}")
