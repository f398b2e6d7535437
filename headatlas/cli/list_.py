"""`headatlas list WHAT`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _options as option
from headatlas.cli._printing import print_entries, print_json

library = "headatlas.list_known"
# What stands in a line, and what below it; --json has everything.
SHOWN = {
    "detectors": (("name", "head_type", "task"), ("what",)),
    "tasks": (("name", "metric"), ("what",)),
    "benchmarks": (("name", "spec"), ("what", "files", "licence", "commands")),
    "models": (("name",), ("what",)),
    "head-types": (("name", "stage", "title"), ("detectors", "reason")),
    "methods": (("name", "category"), ("operation", "commands")),
    "interventions": (("name", "metric"), ("what", "papers")),
}


def list_(
    what: Annotated[
        str, typer.Argument(help="detectors, tasks, benchmarks, models, head-types, methods or interventions.")
    ],
    as_json: option.Json = False,
) -> None:
    """List what headatlas knows: detectors, tasks, benchmarks, models, head types, methods, interventions.

    Example: headatlas list detectors
    """
    import headatlas as ha

    rows = ha.list_known(what)
    if as_json:
        print_json({what.replace("-", "_"): rows})
        return
    short, long = SHOWN[what]
    told = {
        "detectors": "detected by ",
        "reason": "no detector: ",
        "files": "reads ",
        "licence": "licence: ",
        "commands": "runs: ",
        "papers": "after ",
    }
    print_entries(
        [name.replace("_", " ") for name in short],
        [
            (["" if row[name] is None else str(row[name]) for name in short], [f"{told.get(name, '')}{one}" for name in long if row[name] for one in (row[name] if isinstance(row[name], list) else [row[name]])])
            for row in rows
        ],
    )  # fmt: skip
    if what == "detectors":
        open_ones = [row["name"] for row in rows if not row["calibrated"]]
        print_entries([], [([], [f"Not calibrated on planted models: {', '.join(open_ones) or 'none'}."])])
