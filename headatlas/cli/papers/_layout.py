"""Lays a page of the catalogue out for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headatlas.catalogue.describe import Page


def show_page(page: Page) -> RenderableType:
    """Title, facts and tables, one below the other. Texts are printed as they are: nothing in them is markup."""
    parts: list[RenderableType] = [Text(page.title, style="bold"), Text(f"{page.kind} · {page.id}", style="dim")]
    if page.line:
        parts.append(Text(page.line))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="cyan", no_wrap=True)
    facts.add_column(overflow="fold")
    previous = ""
    for label, text in page.facts:
        facts.add_row(Text("" if label == previous else label), Text(text))
        previous = label
    parts += [Text(""), facts]
    for heading, columns, rows in page.tables:
        parts += [Text(""), Text(heading, style="bold"), table(columns, rows)]
    return Group(*parts)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table; long cells are wrapped, never cut, and ids stay in one piece to be copied."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(Text(column), overflow="fold", no_wrap=column in ("Id", "Date"))
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def listing(rows: Iterable[tuple[str, str, str]]) -> Table:
    """Entries as (what stands at the left, title, details below the title)."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True, style="cyan")
    made.add_column(overflow="fold")
    for left, title, details in rows:
        made.add_row(Text(left), Text.assemble((title, "bold"), "\n", details))
    return made
