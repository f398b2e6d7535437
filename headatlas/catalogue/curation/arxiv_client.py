"""Asking arXiv about papers: never faster than the service allows, and in clear words when it does not answer.

The questions and the Atom answers go through the `arxiv` package; what keeps to arXiv's terms of use and looks out
for broken answers is the connection that we put under it.
"""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headatlas.catalogue.curation.arxiv_connection import URL_VARIABLE, ArxivError, Connection
from headatlas.errors import BadInput, HeadAtlasError

if TYPE_CHECKING:
    import arxiv

DEFAULT_URL = "https://export.arxiv.org/api/query"

_NEW_ID = re.compile(
    r"(?:arxiv:|https?://(?:www\.|export\.)?arxiv\.org/(?:abs|pdf)/)?(\d{4}\.\d{4,5})(?:v\d+)?(?:\.pdf)?/?", re.I
)
_WITHDRAWN = re.compile(
    r"^\W*(?:this|the)\s+(?:\w+\s+)?(?:paper|article|submission|manuscript|work|preprint)\s+(?:has\s+been|was|is)\s+withdrawn",
    re.I,
)
_CODE = re.compile(
    r"https?://(?:www\.)?(?:github\.com|gitlab\.com|huggingface\.co|codeberg\.org)/[^\s<>\"'{}\\]+", re.I
)


@dataclass(frozen=True)
class Found:
    """What arXiv says of one paper."""

    arxiv: str  # without the version
    title: str
    abstract: str
    authors: tuple[str, ...]
    published: datetime.datetime  # first version, UTC
    categories: tuple[str, ...]
    doi: str | None
    journal: str | None
    withdrawn: bool
    code: tuple[str, ...]  # links to code hosts in the abstract or comment

    @property
    def link(self) -> str:
        """Where the paper can be read."""
        return f"https://arxiv.org/abs/{self.arxiv}"


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
        package = _package()
        for found in self._results(package.Search(id_list=[wanted], max_results=1), page=1):
            if found.arxiv == wanted:
                return found
        raise ArxivError(f"arXiv has no paper {wanted}.", "Check the identifier on arxiv.org.")

    def search(self, query: str, *, since: datetime.datetime, until: datetime.datetime) -> Iterator[Found]:
        """Papers that match `query` and were first submitted in the time span, oldest first, page by page."""
        package = _package()
        span = f"submittedDate:[{since:%Y%m%d%H%M} TO {until:%Y%m%d%H%M}]"
        search = package.Search(
            query=f"({query}) AND {span}",
            max_results=None,
            sort_by=package.SortCriterion.SubmittedDate,
            sort_order=package.SortOrder.Ascending,
        )
        return self._results(search, page=self.page)

    def _results(self, search: arxiv.Search, page: int) -> Iterator[Found]:
        package = _package()
        # Waiting and trying again are the connection's work, hence none here.
        client = package.Client(page_size=page, delay_seconds=0, num_retries=0)
        client.query_url_format = self.url + "?{}"
        client._session = self._connection
        results = client.results(search)
        while True:
            try:
                result = next(results)
            except StopIteration:
                return
            except package.ArxivError as error:
                raise ArxivError(f"arXiv gave no usable answer: {error}", "Try again in some minutes.") from error
            except (ValueError, RecursionError) as error:
                raise ArxivError(
                    f"An entry in arXiv's answer cannot be read: {error}", "Try again in some minutes."
                ) from error
            yield _found(result)


def _package() -> Any:
    try:
        import arxiv
    except ImportError as error:
        raise HeadAtlasError(
            "Asking arXiv needs the 'arxiv' package.", "Run: pip install 'headatlas[papers]'"
        ) from error
    return arxiv


def plain(text: str | None) -> str:
    """Text on one line, without characters that steer a terminal."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text or "")).strip()


def _found(result: arxiv.Result) -> Found:
    title, abstract, comment = plain(result.title), plain(result.summary), plain(result.comment)
    if "/api/errors" in result.entry_id:
        raise ArxivError(f"arXiv refused the question: {abstract or title}.", "Check the identifier or the query.")
    links = [link.rstrip(".,;:)]") for link in _CODE.findall(f"{abstract} {comment}")]
    return Found(
        arxiv=re.sub(r"v\d+$", "", result.get_short_id()),
        title=title,
        abstract=abstract,
        authors=tuple(name for author in result.authors if (name := plain(author.name))),
        published=result.published,
        categories=tuple(result.categories),
        doi=plain(result.doi) or None,
        journal=plain(result.journal_ref) or None,
        withdrawn=bool(re.search(r"\bwithdrawn\b", comment, re.I) or _WITHDRAWN.match(abstract)),
        code=tuple(dict.fromkeys(links)),
    )
