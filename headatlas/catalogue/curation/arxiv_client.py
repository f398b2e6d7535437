"""Asking arXiv about papers: one by its identifier, or all that answer a query, page by page."""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlencode

from headatlas.catalogue.curation.arxiv_connection import URL_VARIABLE, Connection
from headatlas.catalogue.curation.arxiv_feed import ArxivError, Found, papers, total
from headatlas.errors import BadInput

DEFAULT_URL = "https://export.arxiv.org/api/query"

_NEW_ID = re.compile(
    r"(?:arxiv:|https?://(?:www\.|export\.)?arxiv\.org/(?:abs|pdf)/)?(\d{4}\.\d{4,5})(?:v\d+)?(?:\.pdf)?/?", re.I
)


def arxiv_id(text: str) -> str:
    """The bare identifier in "2409.10559", "arXiv:2409.10559v2" or a link to arXiv; BadInput for anything else."""
    match = _NEW_ID.fullmatch(text.strip())
    if match is None or not 1 <= int(match[1][2:4]) <= 12:
        shown = text.strip()[:80]
        raise BadInput(
            f"'{shown}' is not an arXiv identifier.",
            "Expected four digits (year, month), a dot and four or five digits, such as 2409.10559.",
        )
    return match[1]


class Arxiv:
    """A polite way to ask arXiv; `now` and `sleep` can be replaced so that tests need not wait."""

    def __init__(
        self,
        *,
        url: str | None = None,
        timeout: float = 10.0,
        tries: int = 3,
        page: int = 100,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        if not re.fullmatch(r"https?://[^\s{}?#]+", self.url):
            raise BadInput(
                f"'{self.url}' is not a web address of an arXiv service.", f"Expected something like {DEFAULT_URL}."
            )
        self.page = page
        self._connection = Connection(timeout, tries, now, sleep)

    def paper(self, identifier: str) -> Found:
        """The paper of that identifier; ArxivError where arXiv has none."""
        wanted = arxiv_id(identifier)
        for found in self._page({"id_list": wanted}, start=0, size=1)[0]:
            if found.arxiv == wanted:
                return found
        raise ArxivError(f"arXiv has no paper {wanted}.", "Check the identifier on arxiv.org.")

    def search(self, query: str, *, since: datetime.datetime, until: datetime.datetime) -> Iterator[Found]:
        """Papers that match `query` and were first submitted in the time span, oldest first, page by page."""
        span = f"submittedDate:[{since:%Y%m%d%H%M} TO {until:%Y%m%d%H%M}]"
        question = {"search_query": f"({query}) AND {span}", "sortBy": "submittedDate", "sortOrder": "ascending"}
        start, end = 0, 1
        while start < end:
            page, end = self._page(question, start=start, size=self.page)
            if not page:
                return
            yield from page
            start += len(page)

    def _page(self, question: Mapping[str, str], *, start: int, size: int) -> tuple[list[Found], int]:
        """The papers from `start` on, at most `size` of them, and how many there are in all."""
        query = urlencode({**question, "start": start, "max_results": size})
        feed = self._connection.feed(f"{self.url}?{query}", start)
        return papers(feed), total(feed)
