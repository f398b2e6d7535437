"""The wire between the `arxiv` package and arXiv: waits between calls, gives up on silence, refuses broken answers.

By itself the package waits for ever, takes answers of any size, and reads cut-off XML as if it were whole.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from headatlas.errors import HeadAtlasError

URL_VARIABLE = "HEADATLAS_ARXIV_URL"  # a mirror, or a server made for a test
PAUSE = 3.0  # seconds between calls, as arXiv's terms of use ask
LARGEST_ANSWER = 30_000_000  # bytes; a full page of 2000 papers is about a fifth of it

_ATOM = "{http://www.w3.org/2005/Atom}"
_TOTAL = "{http://a9.com/-/spec/opensearch/1.1/}totalResults"


class ArxivError(HeadAtlasError):
    """arXiv could not be reached, or gave no usable answer."""


@dataclass
class _Answer:
    """The two things that the `arxiv` package reads of a response."""

    status_code: int
    content: bytes


@dataclass
class Connection:
    """Stands where the `arxiv` package keeps its session; every call to the service goes through `get`."""

    timeout: float
    tries: int
    now: Callable[[], float]
    sleep: Callable[[float], None]
    last: float | None = field(default=None, init=False)

    def get(self, url: str, headers: dict[str, str]) -> _Answer:
        """One answer that parses, after as many tries as allowed."""
        trouble, wait = "", 0.0
        for _ in range(self.tries):
            self._hold(wait)
            status, content, after = self._ask(url, headers)
            if status == 429 or status >= 500:
                trouble, wait = f"HTTP {status}", after
                continue
            if status != 200:
                raise ArxivError(
                    f"arXiv refused the question with HTTP {status}: {url}", "Check the identifier or the query."
                )
            if not _lacks_entries(content, url):
                return _Answer(status, content)
            trouble, wait = "an empty page where papers were announced", 0.0
        raise ArxivError(f"arXiv did not answer {self.tries} times in a row ({trouble}).", "Try again in some minutes.")

    def _hold(self, at_least: float) -> None:
        """Wait until the next call is allowed."""
        if self.last is not None:
            due = self.last + max(PAUSE, at_least)
            if due > self.now():
                self.sleep(due - self.now())

    def _ask(self, url: str, headers: dict[str, str]) -> tuple[int, bytes, float]:
        """Status, content, and the wait that the server asks for."""
        host = urlsplit(url).netloc
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=self.timeout) as answer:
                return answer.status, self._read(answer, host), 0.0
        except urllib.error.HTTPError as error:
            with error:
                return error.code, b"", _seconds(error.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, TimeoutError):
                wrong = f"{host} did not answer within {self.timeout:g} seconds."
                raise ArxivError(wrong, "Try again later.") from error
            wrong = f"{host} cannot be reached ({reason or type(error).__name__})."
            hint = f"This command needs the network; a mirror can be named in {URL_VARIABLE}."
            raise ArxivError(wrong, hint) from error
        finally:
            self.last = self.now()

    def _read(self, answer: http.client.HTTPResponse, host: str) -> bytes:
        # The socket's timeout starts anew with every piece, so that a trickling server could hold us for ever.
        parts, size, end = [], 0, time.monotonic() + 4 * self.timeout
        while part := answer.read1(65536):
            parts.append(part)
            size += len(part)
            if size > LARGEST_ANSWER:
                wrong = f"{host} sent more than {LARGEST_ANSWER // 1_000_000} MB."
                raise ArxivError(wrong, "This is not an answer of arXiv's.")
            if time.monotonic() > end:
                wrong = f"{host} did not finish its answer within {4 * self.timeout:g} seconds."
                raise ArxivError(wrong, "Try again later.")
        return b"".join(parts)


def _seconds(header: str | None) -> float:
    """The wait that a busy server asks for, at most a minute; 0 where it asks for none (or names a date)."""
    return min(float(header), 60.0) if header and header.strip().isdigit() else 0.0


def _lacks_entries(content: bytes, url: str) -> bool:
    """Whether the page is empty though the service counts papers on it, which arXiv is known to do under load."""
    try:
        feed = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ArxivError(
            f"The answer is not well-formed XML ({error}).", "A proxy or login page may be in the way."
        ) from error
    if feed.tag != f"{_ATOM}feed":
        raise ArxivError(
            f"The answer is not an Atom feed but <{feed.tag[:60]}>.", "A proxy or login page may be in the way."
        )
    start = int(parse_qs(urlsplit(url).query).get("start", ["0"])[0])
    total = (feed.findtext(_TOTAL) or "0").strip()
    return feed.find(f"{_ATOM}entry") is None and total.isdigit() and int(total) > start
