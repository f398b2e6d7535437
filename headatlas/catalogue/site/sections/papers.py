"""The list of papers with its search and facets, and a page for each."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.export import bibtex
from headatlas.catalogue.schema import Paper
from headatlas.catalogue.site.context import Book, Page, Section
from headatlas.catalogue.site.facets import INDEX, facets, index

_RELATED = 5


def _pages(book: Book) -> Iterator[Page]:
    chosen = facets(book)
    yield Page(INDEX, text=index(book, chosen))
    yield Page("papers/index.html", "papers.html.j2", {"papers": book.newest, "facets": chosen})
    for position, paper in enumerate(book.newest):
        own = chosen.of[paper.id]
        shows = {
            "paper": paper,
            "heads": [book.catalogue.heads[id_] for id_ in own["head"]],
            "methods": [book.catalogue.methods[id_] for id_ in own["method"]],
            "benchmarks": [b for b in book.catalogue.benchmarks.values() if paper in book.catalogue.papers_on_benchmark(b.id)],
            "claims": book.claims_in.get(paper.id, []),
            "circuits": book.circuits_in.get(paper.id, []),
            "model_values": chosen.model_values,
            "bibtex": bibtex.entry(paper),
            "related": _related(book, paper),
            "newer": book.newest[position - 1] if position else None,
            "older": book.newest[position + 1] if position + 1 < len(book.newest) else None,
        }  # fmt: skip
        yield Page(f"papers/{paper.id}.html", "paper.html.j2", shows)


def _related(book: Book, paper: Paper) -> list[Paper]:
    """Papers on the same head types; a rare type in common counts more than one that many papers are about."""
    likeness: dict[str, float] = {}
    for about in book.papers_of.values():
        if paper in about:
            for other in about:
                likeness[other.id] = likeness.get(other.id, 0) + 1 / len(about)
    likeness.pop(paper.id, None)
    best = sorted(likeness, key=lambda id_: (-likeness[id_], id_))[:_RELATED]
    return [book.catalogue.papers[id_] for id_ in best]


PAPERS = Section("papers", _pages, "Papers", 1)
