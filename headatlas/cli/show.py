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
    from headatlas.atlas import Atlas
    from headatlas.cli._screen import show_atlas

    atlas = Atlas(run)
    names = [found["name"] for found in atlas.detectors(detector)] if detector else []
    if as_json:
        print(json.dumps({"detectors": atlas.detectors(detector)} if detector else atlas.data, ensure_ascii=False))
        return
    for name in names or [None]:
        show_atlas(atlas, detector=name, top=top)
