"""What several of the papers commands share: options, and printing JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headatlas.cli._options import Json as Json
from headatlas.render.escape import say, shown, shown_json

Data = Annotated[
    Path | None,
    typer.Option("--data", help="Read the catalogue in this folder instead of the one that comes with headatlas."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write to this file instead of printing.")]


def print_json(value: Any) -> None:
    """Print a value as indented JSON, in UTF-8 whatever the terminal's encoding."""
    print_text(shown_json(json.dumps(value, ensure_ascii=False, indent=2)) + "\n")


def write_or_print(text: str, out: Path | None) -> None:
    """Write a text to a file and say so, or print it where none is named."""
    from headatlas.catalogue.files.output import write_text

    if out is None:
        print_text(text)
    else:
        write_text(out, text)
        say(f"Written: {out}")


def print_text(text: str) -> None:
    """Print a text in UTF-8: exactly, but on a terminal with what acts on it written out."""
    text = shown(text) if sys.stdout.isatty() else text
    sys.stdout.flush()
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(text)
