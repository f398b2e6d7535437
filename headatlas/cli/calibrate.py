"""`headatlas calibrate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from headatlas.cli import _options as option
from headatlas.cli._printing import print_entries, print_json
from headatlas.render.console import console


def calibrate(
    detector: option.Detectors = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small grid, minutes instead of hours.")] = False,
    toy: Annotated[
        list[str] | None,
        typer.Option(help="Folder of a trained toy to judge detectors on as well; may be given several times."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the page (Markdown) here, and its figure beside it; what is done is kept beside it until all is."
        ),
    ] = None,
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
        keep = out.with_name(f"{out.name}.measured") if out is not None else None
        result = ha.calibrate(detector or None, quick=quick, toys=toy or (), keep=keep, progress=shown)
    if out is not None:
        named = [*(f"--detector {name}" for name in detector or []), *(f"--toy {name}" for name in toy or [])]
        command = " ".join(["headatlas calibrate", *(["--quick"] if quick else []), *named])
        figure = out.with_suffix(".svg")
        for path, text in ((figure, page.svg(result)), (out, page.markdown(result, command, figure.name))):
            write_text(path, text)
    if as_json:
        print_json(result)
        return
    if result["detectors"]:
        _show(page.titles(), page.rows(result))
    if result["plantings"]:
        _show(page.sown_titles(), page.sown_rows(result))
    if result["toys"]:
        _show(page.toy_titles(), page.toy_rows(result["toys"]))
    console().print(f"Uncalibrated: {', '.join(result['uncalibrated']) or 'none'}", highlight=False)


def _show(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A row an entry: so many columns would break words on a narrow terminal."""
    entries = [
        ((row[0],), (", ".join(f"{title} {value}" for title, value in zip(titles[1:], row[1:], strict=True) if value),))
        for row in rows
    ]
    print_entries((titles[0],), entries)
