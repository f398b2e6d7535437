"""Printing JSON (NaN as null, and nothing in it that acts on a terminal), and lists that fit narrow terminals."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any


def print_json(value: Any, indent: int | None = None) -> None:
    """Print a value as one JSON text on standard output."""
    from headatlas.render.escape import shown_json
    from headatlas.store import clean

    print(shown_json(json.dumps(clean(value), ensure_ascii=False, allow_nan=False, indent=indent)))


def print_entries(heading: Sequence[str], entries: Sequence[tuple[Sequence[str], Sequence[str]]]) -> None:
    """Entries of a line in columns, and paragraphs below it that are wrapped between words to the width of the terminal.

    A table would give long texts a column so narrow that words break inside.
    """
    from headatlas.render.console import console

    screen = console()
    rows = [heading, *(cells for cells, _ in entries)]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(heading))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)).rstrip()

    def say(text: str, style: str = "") -> None:
        screen.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    if heading:
        say(line(heading), "dim")
    for cells, below in entries:
        if cells:
            say(line(cells), "bold")
        indent = "    " if cells else ""
        for text in below:
            for part in text.splitlines():
                say(
                    textwrap.fill(
                        part, screen.width, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                        break_on_hyphens=False,
                    )
                )  # fmt: skip


def print_beside(text: str, answers: Mapping[str, str]) -> None:
    """A text, and what follows it in several ways side by side: heading -> answer."""
    from rich.table import Table
    from rich.text import Text

    from headatlas.render.console import console
    from headatlas.render.escape import shown

    screen = console()
    screen.print(shown(text, lines=True), highlight=False, markup=False, soft_wrap=True)
    table = Table(*answers, box=None, pad_edge=False, expand=True)
    table.add_row(*(Text(shown(answer, lines=True)) for answer in answers.values()))
    screen.print(table)


def say_start_end(facts: Mapping[str, Any]) -> None:
    """Print which start and end tokens the texts behind a result got, where it says so."""
    from headatlas.render.console import console

    if facts.get("start_end"):
        console().print(f"start and end tokens: {facts['start_end']}", highlight=False, markup=False, style="dim")
