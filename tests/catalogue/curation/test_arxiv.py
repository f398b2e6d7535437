"""Asking arXiv: what it says, how slowly it may be asked, and what happens when it does not answer."""

from __future__ import annotations

import socket
import time

import pytest

from headatlas.catalogue.curation import arxiv_connection
from headatlas.catalogue.curation.arxiv_client import Arxiv, arxiv_id
from headatlas.catalogue.curation.arxiv_feed import ArxivError, papers, parse
from headatlas.errors import BadInput
from tests.catalogue.curation.arxiv_server import FakeClock, FakePaper, Misdeed, ask, feed, serving

PAPER = FakePaper("2502.99991", "Echo Chambers", published="2025-02-20T23:30:00Z")


@pytest.mark.parametrize(
    "good",
    ["2409.10559", " arXiv:2409.10559v2", "https://arxiv.org/abs/2409.10559", "http://arxiv.org/pdf/2409.10559v1.pdf"],
)
def test_ids_are_understood_in_all_common_forms(good: str) -> None:
    assert arxiv_id(good) == "2409.10559"


def test_arxivs_own_error_entry_is_passed_on() -> None:
    body = (
        b'<feed xmlns="http://www.w3.org/2005/Atom"><entry><id>http://arxiv.org/api/errors#incorrect_id</id>'
        b"<updated>2025-01-01T00:00:00Z</updated><published>2025-01-01T00:00:00Z</published><title>Error</title>"
        b"<summary>incorrect id format for 2502.99991</summary></entry></feed>"
    )
    with (
        serving(misdeeds=[Misdeed(body=body)]) as fake,
        pytest.raises(ArxivError, match=r"refused.*incorrect id format"),
    ):
        ask(fake).paper(PAPER.arxiv)


def test_offline_is_said_within_seconds() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/api/query"
    start = time.monotonic()
    with pytest.raises(ArxivError, match=r"127\.0\.0\.1:\d+ cannot be reached .*needs the network"):
        Arxiv(url=url).paper(PAPER.arxiv)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("misdeed", [Misdeed(wait=30), Misdeed(body=b" " * 10_000, trickle=0.05)])
def test_silent_and_trickling_servers_are_given_up(misdeed: Misdeed) -> None:
    start = time.monotonic()
    with serving(PAPER, misdeeds=[misdeed]) as fake, pytest.raises(ArxivError, match=r"within (0\.3|1\.2) seconds"):
        ask(fake, timeout=0.3).paper(PAPER.arxiv)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<feed xmlns='http://www.w3.org/2005/Atom'><entry>", "not well-formed XML"),
        (b"", "not well-formed XML"),
        (b"<html><body>Log in</body></html>", "not an Atom feed but <html>"),
        (
            b'<!DOCTYPE f [<!ENTITY a "aaaaaaaaaa">'
            + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 30) for n in range(12))
            + b"]><feed xmlns='http://www.w3.org/2005/Atom'>&m;</feed>",
            "not well-formed XML",
        ),
    ],
)
def test_broken_answers_are_refused(body: bytes, message: str) -> None:
    with serving(PAPER, misdeeds=[Misdeed(body=body)]) as fake, pytest.raises(ArxivError, match=message):
        ask(fake).paper(PAPER.arxiv)


@pytest.mark.parametrize("declared", ["", ' SYSTEM "file:///etc/passwd"', ' [<!ENTITY a "b">]'])
def test_document_types_are_refused_whatever_they_declare(declared: str) -> None:
    body = feed([PAPER], 1).replace(b"<feed ", f"<!DOCTYPE feed{declared}><feed ".encode())
    with pytest.raises(ArxivError, match="declares a document type"):
        parse(body)
    assert papers(parse(feed([PAPER], 1)))[0].title == PAPER.title


def test_times_are_those_of_utc() -> None:
    body = feed([PAPER], 1).replace(b"<published>2025-02-20T23:30:00Z", b"<published>2025-02-20T23:30:00-05:00")
    (found,) = papers(parse(body))
    assert found.published.isoformat() == "2025-02-21T04:30:00+00:00"
    assert (found.arxiv, found.categories) == (PAPER.arxiv, ("cs.CL",))


def test_an_unreadable_date_is_an_error_of_arxivs() -> None:
    body = feed([PAPER], 1).replace(b"<published>2025-02-20T", b"<published>yesterday")
    with serving(misdeeds=[Misdeed(body=body)]) as fake, pytest.raises(ArxivError, match="cannot be read"):
        ask(fake).paper(PAPER.arxiv)


def test_an_empty_page_that_should_not_be_is_asked_for_again() -> None:
    with serving(PAPER, misdeeds=[Misdeed(body=feed([], 1))]) as fake:
        assert ask(fake).paper(PAPER.arxiv).title == PAPER.title
    assert len(fake.asked) == 2


def test_answers_of_absurd_size_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arxiv_connection, "LARGEST_ANSWER", 2_000_000)
    with (
        serving(PAPER, misdeeds=[Misdeed(body=b" " * 3_000_000)]) as fake,
        pytest.raises(ArxivError, match="more than 2 MB"),
    ):
        ask(fake).paper(PAPER.arxiv)


def test_a_busy_server_is_asked_again_after_the_pause_it_wants() -> None:
    clock = FakeClock()
    with serving(PAPER) as fake:
        fake.misdeeds = [Misdeed(status=503, headers={"Retry-After": "7"}), Misdeed(status=503)]
        found = Arxiv(url=fake.url, now=clock.now, sleep=clock.sleep).paper(PAPER.arxiv)
    assert found.title == PAPER.title
    assert clock.slept == [7.0, 3.0]


def test_a_server_that_stays_busy_is_given_up() -> None:
    with (
        serving(PAPER, misdeeds=[Misdeed(status=503)] * 3) as fake,
        pytest.raises(ArxivError, match=r"3 times in a row \(HTTP 503\)"),
    ):
        ask(fake).paper(PAPER.arxiv)
    assert len(fake.asked) == 3


def test_other_http_errors_are_not_tried_again() -> None:
    with serving(PAPER, misdeeds=[Misdeed(status=400)]) as fake, pytest.raises(ArxivError, match="HTTP 400"):
        ask(fake).paper(PAPER.arxiv)
    assert len(fake.asked) == 1


def test_a_bad_service_address_is_named() -> None:
    with pytest.raises(BadInput, match="not a web address"):
        Arxiv(url="file:///etc/passwd")
