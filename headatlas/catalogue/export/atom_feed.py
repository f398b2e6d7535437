"""The catalogue as an Atom feed, for feed readers."""

from __future__ import annotations

import datetime
import xml.etree.ElementTree as ElementTree

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.extras import paper_url
from headatlas.catalogue.filters import newest_first
from headatlas.catalogue.schema import Paper

_NAMESPACE = "http://www.w3.org/2005/Atom"
# Ids must never change and need not lead anywhere (RFC 4151).
_TAG = "tag:headatlas,2025:"


def as_atom(catalogue: Catalogue, *, address: str | None = None) -> str:
    """A feed of all papers, newest first; `address` is where the feed itself will be found, if that is known."""
    papers = newest_first(catalogue.papers.values())
    feed = ElementTree.Element("feed", xmlns=_NAMESPACE)
    _add(feed, "title", "Papers on attention heads")
    _add(feed, "id", f"{_TAG}papers")
    newest = papers[0].date if papers else datetime.date(2025, 1, 1)
    _add(feed, "updated", _moment(newest))
    _add(_add(feed, "author"), "name", "headatlas")
    if address:
        _add(feed, "link", rel="self", href=address)
    for paper in papers:
        _entry(catalogue, feed, paper)
    ElementTree.indent(feed)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(feed, encoding="unicode") + "\n"


def _entry(catalogue: Catalogue, feed: ElementTree.Element, paper: Paper) -> None:
    entry = _add(feed, "entry")
    _add(entry, "title", paper.title)
    _add(entry, "id", f"{_TAG}paper/{paper.id}")
    _add(entry, "link", rel="alternate", href=paper_url(paper))
    _add(entry, "published", _moment(paper.date))
    _add(entry, "updated", _moment(paper.date))
    for author in paper.authors:
        _add(_add(entry, "author"), "name", author)
    for head in paper.heads:
        _add(entry, "category", term=head, label=catalogue.heads[head].name)
    if paper.summary:
        _add(entry, "summary", " ".join((paper.summary.innovation, paper.summary.tasks, paper.summary.result)))


def _moment(day: datetime.date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _add(parent: ElementTree.Element, name: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name, attributes)
    child.text = text
    return child
