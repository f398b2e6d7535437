"""Visits the catalogue's links politely: arXiv in one question for all papers, others one by one with pauses."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

from rapidfuzz import fuzz

from headatlas.catalogue.catalogue import Catalogue, Place
from headatlas.catalogue.curation.arxiv_client import DEFAULT_URL
from headatlas.catalogue.curation.arxiv_connection import URL_VARIABLE
from headatlas.catalogue.curation.arxiv_feed import ArxivError, parse, titles
from headatlas.catalogue.names import normal
from headatlas.catalogue.problem import Problem
from headatlas.errors import HeadAtlasError

PAUSE = 1.0  # seconds between two visits of one host
TIMEOUT = 15.0
SAME_TITLE = 70.0  # rapidfuzz ratio below which arXiv's title is that of another paper
_AGENT = "headatlas link check (a page at a time; see the project's docs/catalogue.md)"
_GONE = (404, 410)


class Offline(HeadAtlasError):
    """No host answered at all."""


@dataclass
class Visited:
    """What came of it: dead links, and links of which nothing can be said (a host that refuses programs, a timeout)."""

    problems: list[Problem] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    alive: int = 0


def check_links(catalogue: Catalogue, *, sleep: Callable[[float], None] = time.sleep) -> Visited:
    """Ask for every link once; raises Offline, in one line, when nothing can be reached."""
    result = Visited()
    answered: dict[str, bool] = {}
    by_host: defaultdict[str, list[tuple[Place, tuple[str | int, ...], str]]] = defaultdict(list)
    for place, keys, url in _urls(catalogue):
        if urlsplit(url).netloc.removeprefix("www.") != "arxiv.org":
            by_host[urlsplit(url).netloc].append((place, keys, url))
    if any(paper.arxiv for paper in catalogue.papers.values()):
        answered["arXiv"] = _arxiv(catalogue, result)
    for host, visits in by_host.items():
        for number, (place, keys, url) in enumerate(visits):
            if number:
                sleep(PAUSE)
            status = _status(url)
            answered[host] = answered.get(host, False) or isinstance(status, int)
            if status in _GONE:
                right = "Find where it moved to, or take the link out."
                result.problems.append(place.problem(keys, f"{url} answers {status}: it is gone.", right))
            elif isinstance(status, int) and status < 400:
                result.alive += 1
            else:
                result.unclear.append(f"{url} ({status})")
            if not answered[host]:
                # A host that cannot be reached at all is not asked for its other pages.
                result.unclear += [f"{url} (not asked)" for _, _, url in visits[number + 1 :]]
                break
        if len(answered) >= 3 and not any(answered.values()):
            break
    if answered and not any(answered.values()):
        tried = ", ".join(answered)
        raise Offline(f"No link was checked: {tried} cannot be reached.", "This needs the network; are you offline?")
    return result


def _urls(catalogue: Catalogue) -> Iterator[tuple[Place, tuple[str | int, ...], str]]:
    """Every address once, with where it is written."""
    seen: set[str] = set()
    for paper in catalogue.papers.values():
        for position, link in enumerate(paper.links):
            if link.url not in seen:
                seen.add(link.url)
                yield catalogue.places["paper", paper.id], ("links", position, "url"), link.url
    for benchmark in catalogue.benchmarks.values():
        if benchmark.url and benchmark.url not in seen:
            seen.add(benchmark.url)
            yield catalogue.places["benchmark", benchmark.id], ("url",), benchmark.url


def _open(url: str, method: str) -> tuple[int, bytes]:
    request = urllib.request.Request(quote(url, safe=":/?#[]@!$&'()*+,;=%~-._"), method=method)
    request.add_header("User-Agent", _AGENT)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return answer.status, answer.read(5_000_000) if method == "GET" else b""


def _status(url: str) -> int | str:
    """The HTTP status, or in words why there is none; a host that does not know HEAD is asked with GET."""
    for method in ("HEAD", "GET"):
        try:
            return _open(url, method)[0]
        except urllib.error.HTTPError as error:
            if method == "GET" or error.code not in (403, 405, 501):
                return error.code
        except urllib.error.URLError as error:
            return str(error.reason)
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__
    raise AssertionError("unreachable: GET returns")


def _arxiv(catalogue: Catalogue, result: Visited) -> bool:
    """One question for all papers with an arXiv id: whether arXiv has them, and under nearly our title."""
    papers = {paper.arxiv: paper for paper in catalogue.papers.values() if paper.arxiv}
    query = urlencode({"id_list": ",".join(sorted(papers)), "max_results": len(papers)})
    try:
        _, body = _open(f"{os.environ.get(URL_VARIABLE) or DEFAULT_URL}?{query}", "GET")
        known = titles(parse(body))
    except (OSError, ValueError, ArxivError) as error:
        result.unclear.append(f"{len(papers)} papers on arXiv ({getattr(error, 'reason', error)})")
        return isinstance(error, urllib.error.HTTPError | ArxivError)
    for id_, paper in papers.items():
        place = catalogue.places["paper", paper.id]
        if id_ not in known:
            result.problems.append(place.problem(("arxiv",), f"arXiv has no paper {id_}.", "Check the arXiv id."))
        elif fuzz.ratio(normal(paper.title), normal(known[id_])) < SAME_TITLE:
            right = "Check the arXiv id, or the title if the paper was renamed."
            result.problems.append(place.problem(("arxiv",), f"arXiv {id_} is '{known[id_]}'.", right))
        else:
            result.alive += 1
    return True
