"""Reads the pages of a built site: their links, anchors and what they load."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

# Elements without an end tag.
VOID = {"meta", "link", "input", "br", "img", "hr"}


@dataclass
class Read(HTMLParser):
    """One page, read the way a browser would: every attribute of every element, and text outside of scripts."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.text += data

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]

    def values(self, name: str, *tags: str) -> list[str]:
        """The attribute's values, of all elements or of those with these tags."""
        return [a[name] or "" for tag, a in self.elements if name in a and (not tags or tag in tags)]


def read(html: str) -> Read:
    page = Read()
    page.feed(html)
    page.close()
    return page


def pages(files: dict[str, str]) -> dict[str, Read]:
    return {path: read(text) for path, text in files.items() if path.endswith(".html")}


def aim(path: str, href: str) -> tuple[str, str] | None:
    """(file, anchor) that a link on the page leads to; None for one that leaves the site."""
    parts = urlsplit(href)
    if parts.scheme or parts.netloc:
        return None
    where = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(parts.path))) if parts.path else path
    return where, unquote(parts.fragment)
