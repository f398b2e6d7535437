"""The field over time: papers by month and stage, head types as they were named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from headatlas.catalogue.schema import Paper
from headatlas.catalogue.site.context import Page, Section, SiteContext
from headatlas.catalogue.site.pictures.trends import growth, lifelines, months, named_first, often


def _pages(context: SiteContext) -> Iterator[Page]:
    stages = context.catalogue.stages
    by_month: dict[str, list[Paper]] = {}
    for paper in context.newest:
        by_month.setdefault(f"{paper.date:%Y-%m}", []).append(paper)
    first = named_first(context)
    years = sorted({paper.date.year for paper in context.newest})
    so_far = {y: {s: sum(paper.date.year <= y for paper in first[s]) for s in stages} for y in years}
    shows = {
        "months": months(context, root="../"),
        "growth": growth(context),
        "lifelines": lifelines(context, root="../"),
        "often": often(context),
        "by_month": {
            month: (len(papers), Counter(stage for paper in papers for stage in context.catalogue.stages_of(paper)))
            for month, papers in by_month.items()
        },
        "so_far": so_far,
    }
    yield Page("trends/index.html", "trends.html.j2", shows)


TRENDS = Section("trends", _pages, "Trends", 6)
