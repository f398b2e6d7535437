"""`headatlas calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from headatlas.cli import _options as option
from headatlas.cli._printing import print_json
from headatlas.render.console import console


def calibrate(
    detector: option.Detectors = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small grid, minutes instead of hours.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the page (Markdown) here, and its figure beside it.")] = None,
    as_json: option.Json = False,
) -> None:
    """Measure how often detectors are right, on models in which the truth is planted and on controls.

    Example: headatlas calibrate --quick --detector induction
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.lab import calibration_page as page
    from headatlas.render import plots
    from headatlas.store import write_text

    if out is not None:
        plots.require()

    with Shown() as shown:
        result = ha.calibrate(detector or None, quick=quick, progress=shown)
    if out is not None:
        command = " ".join(
            ["headatlas calibrate", *(["--quick"] if quick else []), *(f"--detector {name}" for name in detector or [])]
        )
        figure = out.with_suffix(".svg")
        for path, text in ((figure, page.svg(result)), (out, page.markdown(result, command, figure.name))):
            write_text(path, text)
    if as_json:
        print_json(result)
        return
    table = Table(
        "detector",
        "min. effect",
        "AUC",
        "precision",
        "recall",
        "verdict prec.",
        "verdict recall",
        "refuted rightly",
        "false disc.",
        "heads",
        box=None,
        pad_edge=False,
    )
    for row in page.rows(result):
        table.add_row(*row)
    screen = console()
    if result["detectors"]:
        screen.print(table)
    if result["plantings"]:
        screen.print(_plantings(result))
    screen.print(f"Uncalibrated: {', '.join(result['uncalibrated']) or 'none'}", highlight=False)


def _plantings(result: dict[str, Any]) -> Table:
    from headatlas.lab import calibration_page as page

    table = Table(*page.sown_titles(), box=None, pad_edge=False)
    for row in page.sown_rows(result):
        table.add_row(*row)
    return table
