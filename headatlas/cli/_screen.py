"""Printing an atlas in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def show_atlas(atlas: Any, *, detector: str | None = None, top: int = 5) -> None:
    """Print the map of an atlas, or one detector of it."""
    from headatlas.report import render

    console = Console()
    console.print(render(atlas.data, atlas.extras, detector=detector, top=top, width=console.width))
