"""A stand-in for arXiv on this machine: answers hand-made Atom feeds, or misbehaves as told."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape, quoteattr

from headatlas.catalogue.curation.arxiv_client import Arxiv

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:arxiv="http://arxiv.org/schemas/atom"
  xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">
  <title>ArXiv Query</title><id>http://arxiv.org/api/x</id><updated>2025-03-01T00:00:00-05:00</updated>
"""


@dataclass(frozen=True)
class FakePaper:
    """One paper that the server has."""

    arxiv: str
    title: str
    abstract: str = "We study something else."
    published: str = "2025-02-20T10:00:00Z"
    authors: tuple[str, ...] = ("Ada Lovelace",)
    comment: str = ""
    doi: str = ""
    journal: str = ""

    def entry(self) -> str:
        extra = "".join(
            f"<arxiv:{name}>{escape(value)}</arxiv:{name}>"
            for name, value in (("comment", self.comment), ("doi", self.doi), ("journal_ref", self.journal))
            if value
        )
        authors = "".join(f"<author><name>{escape(name)}</name></author>" for name in self.authors)
        link = quoteattr(f"http://arxiv.org/pdf/{self.arxiv}v2")
        return (
            f"<entry><id>http://arxiv.org/abs/{self.arxiv}v2</id><updated>{self.published}</updated>"
            f"<published>{self.published}</published><title>{escape(self.title)}</title>"
            f"<summary>  {escape(self.abstract)}\n</summary>{authors}{extra}"
            f'<link title="pdf" href={link} rel="related" type="application/pdf"/>'
            '<arxiv:primary_category term="cs.CL"/><category term="cs.CL"/></entry>'
        )


def feed(papers: list[FakePaper], total: int, start: int = 0) -> bytes:
    counts = f"<opensearch:totalResults>{total}</opensearch:totalResults>"
    counts += f"<opensearch:startIndex>{start}</opensearch:startIndex>"
    return (HEAD + counts + "".join(paper.entry() for paper in papers) + "</feed>").encode()


@dataclass
class Misdeed:
    """What to answer instead, once."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0  # before the answer
    trickle: float = 0.0  # between its bytes


@dataclass
class FakeArxiv:
    """The server's papers, what it was asked, and what it should do wrong next."""

    papers: list[FakePaper]
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    misdeeds: list[Misdeed | None] = field(default_factory=list)  # None: answer properly this time
    closing: threading.Event = field(default_factory=threading.Event)

    def answer(self, question: dict[str, str]) -> bytes:
        found = self.papers
        if question.get("id_list"):
            wanted = question["id_list"].split(",")
            found = [paper for paper in found if paper.arxiv in wanted]
        span = re.search(r"submittedDate:\[(\d{12}) TO (\d{12})\]", question.get("search_query", ""))
        if span:
            stamp = {p.arxiv: re.sub(r"\D", "", p.published)[:12] for p in found}
            found = [paper for paper in found if span[1] <= stamp[paper.arxiv] <= span[2]]
        if question.get("sortOrder") == "ascending":
            found = sorted(found, key=lambda paper: (paper.published, paper.arxiv))
        start, size = int(question.get("start", 0)), int(question.get("max_results", 10))
        return feed(found[start : start + size], len(found), start)


@contextlib.contextmanager
def serving(*papers: FakePaper, misdeeds: Sequence[Misdeed | None] = ()) -> Iterator[FakeArxiv]:
    """A server on 127.0.0.1 for the length of the `with` block."""
    fake = FakeArxiv(list(papers), misdeeds=list(misdeeds))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            question = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
            fake.asked.append(question)
            misdeed = fake.misdeeds.pop(0) if fake.misdeeds else None
            if misdeed is None:
                self.reply(Misdeed(body=fake.answer(question)))
                return
            fake.closing.wait(misdeed.wait)
            self.reply(misdeed)

        def reply(self, what: Misdeed) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(what.status)
                for name, value in what.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(what.body)))
                self.end_headers()
                if not what.trickle:
                    self.wfile.write(what.body)
                    return
                for byte in what.body:
                    self.wfile.write(bytes([byte]))
                    if fake.closing.wait(what.trickle):
                        return

        def log_message(self, format: str, *arguments: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/api/query"
    try:
        yield fake
    finally:
        fake.closing.set()
        server.shutdown()
        server.server_close()


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


def ask(fake: FakeArxiv, *, timeout: float = 10.0, page: int = 100, clock: FakeClock | None = None) -> Arxiv:
    """A client of this server that never really waits."""
    clock = clock or FakeClock()
    return Arxiv(url=fake.url, timeout=timeout, page=page, now=clock.now, sleep=clock.sleep)
