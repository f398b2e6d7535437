"""Arguments and options that several commands of `headatlas cache` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headatlas.choices import demand_needle
from headatlas.cli import _checks as check
from headatlas.cli._checks import Check
from headatlas.errors import BadInput


def _needles(name: str) -> None:
    check.task(name)
    demand_needle(name)


def named(paths: list[str]) -> dict[str, str]:
    """Plans by the names of their files. Raises BadInput for two of one name."""
    found = {Path(path).stem: path for path in paths}
    if len(found) < len(paths):
        raise BadInput("Two plans have the same file name.", "Rename one: results go by it.")
    return found


Plan = Annotated[str, typer.Argument(help="File that `cache plan` or `cache import` wrote."), Check(check.cache_plan)]
Plans = Annotated[
    list[str] | None,
    typer.Option("--plan", help="File that `cache plan` wrote; may be given several times."),
    Check(check.cache_plan),
]
Needles = Annotated[
    str, typer.Option("--task", help="needle, needle-1024, needle-2048, needle-4096 ..."), Check(_needles)
]
Keep = Annotated[float, typer.Option(help="Bytes, as a share of the full cache's."), check.share("bytes")]
PlanOut = Annotated[str | None, typer.Option("--out", help="Write the plan here (JSON)."), Check(check.new_file)]
