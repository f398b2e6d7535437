"""`headatlas show RUN_OR_DIR`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli._printing import print_json


def show(
    run: Annotated[str, typer.Argument(help="A run folder, or a folder of runs (the newest is shown).")] = "atlas",
    detector: Annotated[str | None, typer.Option(help="Only this detector or head type.")] = None,
    top: Annotated[int, typer.Option(help="Heads per head type.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print atlas.json, or the detector's part of it.")] = False,
) -> None:
    """Print the map and the best heads of a finished run.

    Example: headatlas show atlas/smollm2-135m --detector induction --top 10
    """
    import headatlas as ha
    from headatlas.render.console import console

    if as_json:
        atlas = ha.Atlas(run)
        print_json({"detectors": atlas.detectors(detector)} if detector else atlas.data)
        return
    screen = console()
    screen.print(ha.show(run, detector=detector, top=top, width=screen.width))
