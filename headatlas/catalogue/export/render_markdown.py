"""Writes the catalogue as the awesome list its readers know: one Markdown page with the taxonomy and a table a year."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from urllib.parse import quote

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.describe import link_label
from headatlas.catalogue.filters import newest_first
from headatlas.catalogue.rules.papers import BEFORE
from headatlas.catalogue.schema import HeadType, Link, Paper

_COLOURS = {"kr": "4c78a8", "ici": "54a24b", "lr": "e45756", "ep": "b279a2"}
_LINK_COLOUR = "24292f"
_BADGE = "https://img.shields.io/badge/"


def markdown(catalogue: Catalogue) -> str:
    """The whole page; the same catalogue always gives the same text, so that a diff shows what changed."""
    return "\n".join(_lines(catalogue)) + "\n"


def section_title(section: str) -> str:
    """The heading of one of the list's sections."""
    return "Before 2023" if section == BEFORE else section


def sections(catalogue: Catalogue) -> dict[str, tuple[Paper, ...]]:
    """The papers by section, newest section and newest paper first."""
    found = sorted({paper.section for paper in catalogue.papers.values()}, key=lambda s: (s != BEFORE, s), reverse=True)
    return {s: newest_first(p for p in catalogue.papers.values() if p.section == s) for s in found}


def _lines(catalogue: Catalogue) -> Iterator[str]:
    papers, heads, claims = len(catalogue.papers), len(catalogue.heads), len(catalogue.claims)
    yield "# Awesome Attention Heads"
    yield ""
    counted = (("papers", papers), ("head types", heads), ("claims", claims))
    yield " ".join(_badge(what, str(number)) for what, number in counted)
    yield ""
    yield f"{papers} papers on what the attention heads of transformers do, and the {heads} kinds of heads in them."
    yield "Written by `headatlas papers render` from the catalogue's data; change those, not this file."
    yield ""
    yield "- [Taxonomy](#taxonomy)"
    for section, listed in sections(catalogue).items():
        yield f"- [{section_title(section)}](#{_anchor(section_title(section))}) ({len(listed)})"
    yield "- [Head types](#head-types)"
    yield ""
    yield "## Taxonomy"
    yield ""
    yield from _taxonomy(catalogue)
    for section, listed in sections(catalogue).items():
        yield ""
        yield f"## {section_title(section)}"
        yield ""
        yield from _table(["Date", "Paper &amp; Summary", "Tags", "Links"], (_row(catalogue, p) for p in listed))
    yield ""
    yield "## Head types"
    yield ""
    yield from _table(["Head type", "What it does", "Papers"], (_head_row(catalogue, h) for h in _by_name(catalogue)))


def _anchor(title: str) -> str:
    """The anchor that Markdown hosts give to a heading."""
    return title.lower().replace(" ", "-")


def _by_name(catalogue: Catalogue) -> list[HeadType]:
    return sorted(catalogue.heads.values(), key=lambda head: (head.name.lower(), head.id))


def _table(columns: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    """An HTML table, a cell a line and no blank line, so that Markdown leaves what is in it alone."""
    yield "<table>"
    yield f"<thead><tr>{''.join(f'<th>{column}</th>' for column in columns)}</tr></thead>"
    yield "<tbody>"
    for row in rows:
        yield "<tr>"
        yield from row
        yield "</tr>"
    yield "</tbody>"
    yield "</table>"


def _row(catalogue: Catalogue, paper: Paper) -> list[str]:
    parts = [f"<b>{_text(paper.title)}</b>"]
    if paper.summary:
        for name in ("innovation", "tasks", "result"):
            parts.append(f"• <b>{name.capitalize()}:</b> {_text(getattr(paper.summary, name))}")
    tags = (
        f'<a href="#head-{id_}">{_badge(tag, None, _COLOURS[catalogue.heads[id_].stage])}</a>'
        for id_, tag in catalogue.tags_of(paper).items()
    )
    return [
        f'<td><a id="paper-{paper.id}"></a>{paper.date}</td>',
        f"<td>{'<br>'.join(parts)}</td>",
        f"<td>{'<br>'.join(tags)}</td>",
        f"<td>{'<br>'.join(_link(link) for link in paper.links)}</td>",
    ]


def _link(link: Link) -> str:
    badge = _badge(link.kind.capitalize(), link.venue, _LINK_COLOUR, alt=link_label(link))
    return f'<a href="{escape(link.url)}">{badge}</a>'


def _taxonomy(catalogue: Catalogue) -> Iterator[str]:
    def rows() -> Iterator[list[str]]:
        for stage in catalogue.stages.values():
            for position, dimension in enumerate(stage.dimensions):
                heads = [head for head in _by_name(catalogue) if head.dimension == dimension.id]
                names = ", ".join(_head_link(head) for head in heads)
                first = (
                    [f'<td rowspan="{len(stage.dimensions)}"><b>{_text(stage.name)}</b></td>'] if position == 0 else []
                )
                yield [*first, f"<td>{_text(dimension.name)}</td>", f"<td>{names}</td>"]

    yield from _table(["Stage", "Dimension", "Head types"], rows())
    yield ""
    yield "An asterisk marks a head type that the survey does not place; the placement is ours."


def _head_link(head: HeadType) -> str:
    return f'<a href="#head-{head.id}">{_text(head.name)}</a>{"*" if head.placed_by == "ours" else ""}'


def _head_row(catalogue: Catalogue, head: HeadType) -> list[str]:
    papers = reversed(catalogue.papers_for(head.id))
    links = "<br>".join(f'<a href="#paper-{paper.id}">{_text(paper.title)}</a> ({paper.date.year})' for paper in papers)
    also = f"<br>also: {_text(', '.join(head.aliases))}" if head.aliases else ""
    return [
        f'<td><a id="head-{head.id}"></a><b>{_text(head.name)}</b>{also}</td>',
        f"<td>{_text(head.role)}</td>",
        f"<td>{links}</td>",
    ]


def _text(text: str) -> str:
    """The text for a table cell: on one line, with every sign of HTML escaped."""
    return escape(" ".join(text.split()))


def _badge(label: str, message: str | None, colour: str = "2f6f9f", *, alt: str = "") -> str:
    parts = [part.replace("-", "--").replace("_", "__").replace(" ", "_") for part in (label, message) if part]
    address = _BADGE + "-".join(quote(part, safe="") for part in (*parts, colour))
    return f'<img src="{address}" alt="{escape(alt or ": ".join(p for p in (label, message) if p))}">'
