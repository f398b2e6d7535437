"""Texts are plain, short and ours to print: no markup, no scripts, no links to places that do not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator

from headatlas.catalogue.catalogue import Catalogue, Place
from headatlas.catalogue.problem import Problem
from headatlas.catalogue.schema import Paper

MAX_SUMMARY_WORDS = 60
# Tokens such as <s> and <|endoftext|> are texts of the field; these would be markup.
_TAGS = (
    "a|b|base|body|br|button|details|div|embed|font|form|html|iframe|img|input|link|meta|object|p|script|span|style|svg"
    "|table|video"
)
_MARKUP = re.compile(rf"</?(?:{_TAGS})(?:[\s/][^>]*)?>|<(?:script|iframe|svg|img)\b|<!--|\bjavascript:", re.I)
_RELATIVE_LINK = re.compile(r"\[\[([^\]]*)\]\]|\]\((?!https?://)([^)\s]*)\)")
_NUMBER = re.compile(r"(?<![\w.-])\d+(?:[.,]\d+)*\s?(?:%|x\b|points?\b|percent\b)")


def texts(catalogue: Catalogue) -> Iterator[Problem]:
    """Markup and dead links anywhere; summaries that are missing, too long or give numbers nobody read."""
    known = {id_ for _, id_ in catalogue.places}
    seen: set[str] = set()
    for place in catalogue.places.values():
        if place.file not in seen:
            seen.add(place.file)
            yield from _strings(place, place.document.value, (), known)
    for paper in catalogue.papers.values():
        yield from _summary(catalogue.places["paper", paper.id], paper)


def _strings(place: Place, value: object, keys: tuple[str | int, ...], known: set[str]) -> Iterator[Problem]:
    """Walk a whole file; every text in it is held to the same rules."""
    whole = Place(place.file, place.document)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(place, inner, (*keys, key), known)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _strings(place, inner, (*keys, position), known)
    elif isinstance(value, str):
        if match := _MARKUP.search(value):
            yield whole.problem(keys, f"the text holds markup ('{match[0][:40]}').", "Write plain text.")
        for match in _RELATIVE_LINK.finditer(value):
            target = (match[1] or match[2] or "").strip().lstrip("#")
            if target not in known:
                right = "Link to the id of an entry, or write plain text."
                yield whole.problem(keys, f"the text links to '{target}', which is no entry.", right)


def _summary(place: Place, paper: Paper) -> Iterator[Problem]:
    summary = paper.summary
    if summary is None:
        right = "Write innovation, tasks, result and evidence in your own words."
        yield place.problem(("summary",), "the summary is missing.", right)
        return
    words = sum(len(part.split()) for part in (summary.innovation, summary.tasks, summary.result))
    if words > MAX_SUMMARY_WORDS:
        right = f"Cut it to {MAX_SUMMARY_WORDS}."
        yield place.problem(("summary",), f"the summary has {words} words in its three parts.", right)
    if set(summary.evidence) <= {"recall"} and (match := _NUMBER.search(summary.result)):
        right = "Leave the number out, or read a source and name it as evidence."
        yield place.problem(("summary", "result"), f"'{match[0]}' is given from recall alone.", right)
    if len(set(summary.evidence)) < len(summary.evidence):
        yield place.problem(("summary", "evidence"), "a kind of evidence is named twice.", "Name each once.")
