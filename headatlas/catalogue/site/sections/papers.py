"""The list of papers with its search and facets, and a page for each."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.export import bibtex
from headatlas.catalogue.schema import Paper
from headatlas.catalogue.site.context import Page, Section, SiteContext
from headatlas.catalogue.site.facets import INDEX, facets, index
from headatlas.catalogue.site.models import model_pages

_RELATED = 5


def _pages(context: SiteContext) -> Iterator[Page]:
    chosen = facets(context)
    models = {name: page.path for page in model_pages(context) for name in page.names}
    yield Page(INDEX, text=index(context, chosen))
    yield Page("papers/index.html", "papers.html.j2", {"papers": context.newest, "facets": chosen})
    for position, paper in enumerate(context.newest):
        own = chosen.of[paper.id]
        shows = {
            "paper": paper,
            "heads": [context.catalogue.heads[id_] for id_ in own["head"]],
            "tags": context.catalogue.tags_of(paper),
            "methods": [context.catalogue.methods[id_] for id_ in own["method"]],
            "benchmarks": [context.catalogue.benchmarks[id_] for id_ in context.benchmarks_of.get(paper.id, [])],
            "claims": context.claims_in.get(paper.id, []),
            "circuits": context.circuits_in.get(paper.id, []),
            "model_paths": models,
            "commands": context.commands.get(paper.id, ()),
            "bibtex": bibtex.entry(paper),
            "related": _related(context, paper),
            "newer": context.newest[position - 1] if position else None,
            "older": context.newest[position + 1] if position + 1 < len(context.newest) else None,
        }  # fmt: skip
        yield Page(f"papers/{paper.id}.html", "paper.html.j2", shows)


def _related(context: SiteContext, paper: Paper) -> list[Paper]:
    """Papers on the same head types; a rare type in common counts more than one that many papers are about."""
    likeness: dict[str, float] = {}
    for head in context.heads_of.get(paper.id, []):
        about = context.papers_of[head]
        for other in about:
            likeness[other.id] = likeness.get(other.id, 0) + 1 / len(about)
    likeness.pop(paper.id, None)
    best = sorted(likeness, key=lambda id_: (-likeness[id_], id_))[:_RELATED]
    return [context.catalogue.papers[id_] for id_ in best]


PAPERS = Section("papers", _pages, "Papers", 1)
