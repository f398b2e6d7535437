"""What the catalogue is, how to read it, how to add a paper, how to take the data along."""

from __future__ import annotations

from collections.abc import Iterator

from headatlas.catalogue.site.context import Page, Section, SiteContext
from headatlas.catalogue.stats import stats


def _pages(context: SiteContext) -> Iterator[Page]:
    yield Page("about/index.html", "about.html.j2", {"stats": stats(context.catalogue)})


ABOUT = Section("about", _pages, "About", 8)
