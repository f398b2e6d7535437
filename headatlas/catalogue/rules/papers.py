"""Papers: listed once, dated by the day they were first public, in the right section, with identifiers that fit their links.

The one rule for dates: the day on which a paper could first be read, wherever that was: arXiv's first version, or a blog or
proceedings that came before it. A later venue changes `venue`, never `date` or `section`.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Iterator

from rapidfuzz import fuzz

from headatlas.catalogue.catalogue import Catalogue, Place
from headatlas.catalogue.names import normal
from headatlas.catalogue.problem import Problem
from headatlas.catalogue.schema import Paper

BEFORE = "before-2023"
# ChatGPT's announcement: the list's oldest section is named after it.
ANNOUNCED = datetime.date(2022, 11, 30)
FIRST_YEAR = 1990
NEAR_EQUAL = 93.0  # rapidfuzz ratio of two titles without case and signs
# arXiv numbers papers by the month they came in; a paper may be public elsewhere before, so only that side has slack.
_MONTHS_EARLIER = 24
_ARXIV_LINK = re.compile(r"https?://(?:www\.)?(?:export\.)?arxiv\.org/(?:abs|pdf|html)/(\d{4}\.\d{4,5})")
ACL_LINK = re.compile(r"https?://(?:www\.)?aclanthology\.org/([A-Za-z0-9.-]+?)(?:\.pdf|/)?$")
OPENREVIEW_LINK = re.compile(r"https?://openreview\.net/(?:forum|pdf)\?id=([\w-]+)")
DOI_LINK = re.compile(r"https?://(?:dx\.)?doi\.org/(10\.\d{4,9}/\S+)$")


def papers(catalogue: Catalogue) -> Iterator[Problem]:
    """Faults within each paper, then those between papers."""
    today = datetime.date.today()
    for paper in catalogue.papers.values():
        place = catalogue.places["paper", paper.id]
        yield from _dates(place, paper, today)
        yield from _arxiv(place, paper)
        yield from _links(place, paper)
        yield from _lists(place, paper)
    yield from _twins(catalogue)


def _dates(place: Place, paper: Paper, today: datetime.date) -> Iterator[Problem]:
    if paper.date > today:
        yield place.problem(("date",), f"{paper.date} is in the future.", "Give the day of the first public version.")
    if paper.date.year < FIRST_YEAR:
        yield place.problem(("date",), f"{paper.date} is before {FIRST_YEAR}.", "Give the day of the first version.")
    right = f"Write '{section_of(paper.date)}', or correct the date."
    if paper.section != BEFORE and not re.fullmatch(r"20\d\d", paper.section):
        yield place.problem(("section",), f"there is no section '{paper.section}'.", right)
    elif paper.section != section_of(paper.date):
        wrong = f"section '{paper.section}' does not fit the date {paper.date}."
        yield place.problem(("section",), wrong, right)


def section_of(date: datetime.date) -> str:
    """The list's section for a paper of that day.

    >>> section_of(datetime.date(2024, 5, 1)), section_of(datetime.date(2019, 5, 1))
    ('2024', 'before-2023')
    """
    # The list has no section for December 2022: it goes to the year that follows.
    return BEFORE if date < ANNOUNCED else str(max(date.year, 2023))


def _arxiv(place: Place, paper: Paper) -> Iterator[Problem]:
    if paper.arxiv is None:
        return
    year, month, serial = 2000 + int(paper.arxiv[:2]), int(paper.arxiv[2:4]), paper.arxiv[5:]
    if not 1 <= month <= 12 or (year, month) < (2007, 4):
        yield place.problem(("arxiv",), f"'{paper.arxiv}' has no month of 2007-04 or later.", "Check the arXiv id.")
        return
    if len(serial) != (5 if year >= 2015 else 4):
        wrong = f"'{paper.arxiv}' has {len(serial)} digits after the point."
        yield place.problem(("arxiv",), wrong, "arXiv ids have 4 until 2014 and 5 since 2015.")
    later = (paper.date.year - year) * 12 + paper.date.month - month
    # Entered in the last days of a month, numbered in that month, announced in the next.
    if later > 1:
        wrong = f"the date {paper.date} is months after arXiv {paper.arxiv} came in."
        yield place.problem(("date",), wrong, "Give the day on which it was first public, not that of the venue.")
    elif later < -_MONTHS_EARLIER:
        wrong = f"the date {paper.date} is years before arXiv {paper.arxiv} came in."
        yield place.problem(("date",), wrong, "Check the date and the arXiv id.")


def _links(place: Place, paper: Paper) -> Iterator[Problem]:
    seen: set[str] = set()
    if not any(link.kind == "paper" for link in paper.links):
        yield place.problem(("links",), "no link leads to the paper itself.", "Add one of kind 'paper'.")
    for position, link in enumerate(paper.links):
        keys = ("links", position, "url")
        if link.url in seen:
            yield place.problem(keys, f"the link {link.url} stands here twice.", "Keep one.")
        seen.add(link.url)
        for name, pattern, own in (
            ("arxiv", _ARXIV_LINK, paper.arxiv),
            ("acl", ACL_LINK, paper.acl),
            ("openreview", OPENREVIEW_LINK, paper.openreview),
            ("doi", DOI_LINK, paper.doi),
        ):
            match = pattern.match(link.url) if link.kind == "paper" else None
            if match and own is None:
                yield place.problem(
                    keys, f"the link names {match[1]} but '{name}' is missing.", f"Add {name}: '{match[1]}'."
                )
            elif match and own is not None and match[1].lower() != own.lower():
                wrong = f"the link leads to {match[1]} but {name} is '{own}'."
                yield place.problem(keys, wrong, "Correct the one that is wrong.")


def _lists(place: Place, paper: Paper) -> Iterator[Problem]:
    for key in ("authors", "heads", "tags", "methods", "models", "benchmarks", "bib_keys"):
        values = getattr(paper, key)
        for position, value in enumerate(values):
            if value in values[:position]:
                yield place.problem((key, position), f"'{value}' stands twice in {key}.", "Keep one.")
    if not paper.heads and not paper.methods:
        right = "Name what heads it is about, or by what method it finds or tests heads; else leave the paper out."
        yield place.problem(("heads",), "the paper names neither a head type nor a method.", right)


def _twins(catalogue: Catalogue) -> Iterator[Problem]:
    """Two entries for one paper: a shared identifier or bibliography key, or near-equal titles."""
    owners: dict[tuple[str, str], str] = {}
    titles: defaultdict[str, str] = defaultdict(str)
    for paper in catalogue.papers.values():
        place = catalogue.places["paper", paper.id]
        ids = [
            (name, str(getattr(paper, name))) for name in ("arxiv", "doi", "acl", "openreview") if getattr(paper, name)
        ]
        for name, value in [*ids, *(("bib_keys", key) for key in paper.bib_keys)]:
            other = owners.setdefault((name, value.lower()), paper.id)
            if other != paper.id:
                right = "If it is the same paper, keep one file; else correct the identifier."
                yield place.problem((name,), f"{name} {value} belongs to '{other}' too.", right)
        plain = normal(paper.title)
        for other, title in titles.items():
            if fuzz.ratio(plain, title, score_cutoff=NEAR_EQUAL):
                right = "If it is the same paper, keep one file; else make the titles exact."
                yield place.problem(("title",), f"the title is nearly that of '{other}'.", right)
        titles[paper.id] = plain
