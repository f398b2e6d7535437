"""The connection to arXiv: waits between calls as its terms of use ask, gives up on silence, bounds every answer."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

from headatlas.catalogue.curation.arxiv_feed import ArxivError, has_entries, parse, total

URL_VARIABLE = "HEADATLAS_ARXIV_URL"  # a mirror, or a server made for a test
PAUSE = 3.0  # seconds between calls, as arXiv's terms of use ask
LARGEST_ANSWER = 30_000_000  # bytes; a full page of 2000 papers is about a fifth of it
_AGENT = "headatlas (one call every three seconds; see the project's docs/contributing-papers.md)"


@dataclass
class Connection:
    """Every call to the service goes through `feed`."""

    timeout: float
    tries: int
    now: Callable[[], float]
    sleep: Callable[[float], None]
    last: float | None = field(default=None, init=False)

    def feed(self, url: str, start: int) -> Element:
        """The page of a feed that begins with paper `start`, after as many tries as allowed."""
        trouble, wait = "", 0.0
        for _ in range(self.tries):
            self._hold(wait)
            status, content, after = self._ask(url)
            if status == 429 or status >= 500:
                trouble, wait = f"HTTP {status}", after
                continue
            if status != 200:
                raise ArxivError(
                    f"arXiv refused the question with HTTP {status}: {url}", "Check the identifier or the query."
                )
            feed = parse(content)
            # Under load arXiv is known to send pages without the papers that it counts on them.
            if has_entries(feed) or total(feed) <= start:
                return feed
            trouble, wait = "an empty page where papers were announced", 0.0
        raise ArxivError(f"arXiv did not answer {self.tries} times in a row ({trouble}).", "Try again in some minutes.")

    def _hold(self, at_least: float) -> None:
        """Wait until the next call is allowed."""
        if self.last is not None:
            due = self.last + max(PAUSE, at_least)
            if due > self.now():
                self.sleep(due - self.now())

    def _ask(self, url: str) -> tuple[int, bytes, float]:
        """Status, content, and the wait that the server asks for."""
        host = urlsplit(url).netloc
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, headers={"User-Agent": _AGENT}), timeout=self.timeout
            ) as answer:
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
