"""The board: claims that others ran again, with weights, texts and versions named, and how a row is handed in.

It has no place in the navigation, which is full: badges, models and the about page lead there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from headatlas.catalogue.files.boards import RESULTS
from headatlas.catalogue.site.context import Page, Section, SiteContext


def _pages(context: SiteContext) -> Iterator[Page]:
    counts = Counter(one.row["result"] for one in context.replications)
    shows = {"rows": context.replications, "counts": {name: counts[name] for name in RESULTS if counts[name]}}
    yield Page("replications/index.html", "replications.html.j2", shows)


REPLICATIONS = Section("replications", _pages)
