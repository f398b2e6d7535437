"""`headatlas show RUN_OR_DIR`."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def show(
    run: Annotated[str, typer.Argument(help="A run folder, or a folder of runs (the newest is shown).")] = "atlas",
    detector: Annotated[str | None, typer.Option(help="Only this detector or head type.")] = None,
    top: Annotated[int, typer.Option(help="Heads per head type.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print atlas.json, or the detector's part of it.")] = False,
) -> None:
    """Print the map and the best heads of a finished run.

    Example: headatlas show atlas/smollm2-135m --detector induction --top 10
    """
    from rich.console import Console

    import headatlas as ha

    if as_json:
        atlas = ha.Atlas(run)
        print(json.dumps({"detectors": atlas.detectors(detector)} if detector else atlas.data, ensure_ascii=False))
        return
    console = Console()
    console.print(ha.show(run, detector=detector, top=top, width=console.width))
