"""The field over time: papers by month and stage, head types as they were named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from headatlas.catalogue.schema import Paper
from headatlas.catalogue.site.context import Book, Page, Section
from headatlas.catalogue.site.pictures.trends import growth, lifelines, months, named_first, often


def _pages(book: Book) -> Iterator[Page]:
    stages = book.catalogue.stages
    by_month: dict[str, list[Paper]] = {}
    for paper in book.newest:
        by_month.setdefault(f"{paper.date:%Y-%m}", []).append(paper)
    first = named_first(book)
    years = sorted({paper.date.year for paper in book.newest})
    so_far = {y: {s: sum(paper.date.year <= y for paper in first[s]) for s in stages} for y in years}
    shows = {
        "months": months(book, root="../"),
        "growth": growth(book),
        "lifelines": lifelines(book, root="../"),
        "often": often(book),
        "by_month": {
            month: (len(papers), Counter(stage for paper in papers for stage in book.catalogue.stages_of(paper)))
            for month, papers in by_month.items()
        },
        "so_far": so_far,
    }
    yield Page("trends/index.html", "trends.html.j2", shows)


TRENDS = Section("trends", _pages, "Trends", 6)
