"""Reads a rendered list back into papers: the proof that nothing was lost, and a way to read an old edition."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class ListedPaper:
    """What one row of a year's table says."""

    id: str
    date: datetime.date | None = None
    title: str = ""
    summary: dict[str, str] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)  # what it leads to, address
    section: str = ""


def parse_markdown(text: str) -> list[ListedPaper]:
    """The papers of a list that `markdown` wrote, in its order."""
    parser = _Rows()
    for line in text.splitlines(keepends=True):
        if line.startswith("## "):
            parser.section = line[3:].strip()
        elif line.lstrip().startswith("<"):
            parser.feed(line)
    parser.close()
    return parser.papers


class _Rows(HTMLParser):
    """Follows the table cells of each row that has a paper's anchor."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.papers: list[ListedPaper] = []
        self.section = ""
        self._paper: ListedPaper | None = None
        self._cell = 0
        self._lines: list[str] = []
        self._address = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count cells; take ids, addresses and what badges say."""
        values = {name: value or "" for name, value in attrs}
        if tag == "tr":
            self._paper, self._cell = None, 0
        elif tag == "td":
            self._cell += 1
            self._lines = [""]
        elif tag == "br":
            self._lines.append("")
        elif tag == "a" and values.get("id", "").startswith("paper-"):
            self._paper = ListedPaper(values["id"].removeprefix("paper-"), section=self.section)
            self.papers.append(self._paper)
        elif tag == "a":
            self._address = values.get("href", "")
        elif tag == "img" and self._paper and self._cell == 3:
            self._paper.heads.append(self._address.removeprefix("#head-"))
        elif tag == "img" and self._paper and self._cell == 4:
            self._paper.links.append((values["alt"], self._address))

    def handle_endtag(self, tag: str) -> None:
        """Close a cell: the first holds the date, the second title and summary."""
        if tag != "td" or self._paper is None:
            return
        if self._cell == 1:
            self._paper.date = datetime.date.fromisoformat(self._lines[0].strip())
        elif self._cell == 2:
            self._paper.title = self._lines[0].strip()
            parts = (line.removeprefix("• ").partition(":") for line in self._lines[1:])
            self._paper.summary = {name.lower(): value.strip() for name, _, value in parts}

    def handle_data(self, data: str) -> None:
        """Collect the text of the cell, line by line."""
        if self._lines:
            self._lines[-1] += data
