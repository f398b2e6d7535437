"""Reads arXiv's answers: Atom feeds, checked to be whole, and the papers in them.

XML from the network is parsed without document types: no entity is ever declared, so none can unfold into gigabytes or
name a file. How large an answer may be is the connection's to say.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from headatlas.errors import HeadAtlasError

_ATOM = "{http://www.w3.org/2005/Atom}"
_ARXIV = "{http://arxiv.org/schemas/atom}"
_TOTAL = "{http://a9.com/-/spec/opensearch/1.1/}totalResults"
_WITHDRAWN = re.compile(
    r"^\W*(?:this|the)\s+(?:\w+\s+)?(?:paper|article|submission|manuscript|work|preprint)\s+(?:has\s+been|was|is)\s+withdrawn",
    re.I,
)
_CODE = re.compile(
    r"https?://(?:www\.)?(?:github\.com|gitlab\.com|huggingface\.co|codeberg\.org)/[^\s<>\"'{}\\]+", re.I
)


class ArxivError(HeadAtlasError):
    """arXiv could not be reached, or gave no usable answer."""


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


def parse(content: bytes) -> Element:
    """The feed in an answer; ArxivError where it is cut off, declares a document type, or is something else."""
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")

    def full(name: str) -> str:
        return f"{{{name}" if "}" in name else name

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which no answer of arXiv's does")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda name, attributes: builder.start(full(name), attributes)
    parser.EndElementHandler = lambda name: builder.end(full(name))
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError) as error:
        hint = "A proxy or login page may be in the way."
        raise ArxivError(f"The answer is not well-formed XML ({error}).", hint) from error
    feed = builder.close()
    if feed.tag != f"{_ATOM}feed":
        hint = "A proxy or login page may be in the way."
        raise ArxivError(f"The answer is not an Atom feed but <{feed.tag[:60]}>.", hint)
    return feed


def total(feed: Element) -> int:
    """How many papers answer the question, on all pages together; 0 where the feed does not say."""
    text = (feed.findtext(_TOTAL) or "").strip()
    return int(text) if text.isdecimal() else 0


def has_entries(feed: Element) -> bool:
    """Whether there is anything on the page."""
    return feed.find(f"{_ATOM}entry") is not None


def titles(feed: Element) -> dict[str, str]:
    """Identifier -> title of the papers on the page, whatever else their entries lack."""
    entries = feed.iter(f"{_ATOM}entry")
    return {short_id(plain(e.findtext(f"{_ATOM}id"))): plain(e.findtext(f"{_ATOM}title")) for e in entries}


def papers(feed: Element) -> list[Found]:
    """The papers of a page, in its order; ArxivError where arXiv refuses the question or an entry cannot be read."""
    return [_paper(entry) for entry in feed.iter(f"{_ATOM}entry")]


def _paper(entry: Element) -> Found:
    def text(tag: str) -> str:
        return plain(entry.findtext(tag))

    id_, title, abstract = text(f"{_ATOM}id"), text(f"{_ATOM}title"), text(f"{_ATOM}summary")
    if "/api/errors" in id_:
        raise ArxivError(f"arXiv refused the question: {abstract or title}.", "Check the identifier or the query.")
    try:
        published = datetime.datetime.fromisoformat(text(f"{_ATOM}published"))
    except ValueError as error:
        hint = "Try again in some minutes."
        raise ArxivError(f"An entry in arXiv's answer cannot be read: {error}", hint) from error
    comment = text(f"{_ARXIV}comment")
    links = [link.rstrip(".,;:)]") for link in _CODE.findall(f"{abstract} {comment}")]
    authors = (plain(author.findtext(f"{_ATOM}name")) for author in entry.iter(f"{_ATOM}author"))
    return Found(
        arxiv=short_id(id_),
        title=title,
        abstract=abstract,
        authors=tuple(name for name in authors if name),
        # arXiv writes Z; a time without a zone is taken for UTC.
        published=(published if published.tzinfo else published.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC),
        categories=tuple(category.get("term", "") for category in entry.iter(f"{_ATOM}category")),
        doi=text(f"{_ARXIV}doi") or None,
        journal=text(f"{_ARXIV}journal_ref") or None,
        withdrawn=bool(re.search(r"\bwithdrawn\b", comment, re.I) or _WITHDRAWN.match(abstract)),
        code=tuple(dict.fromkeys(links)),
    )


def short_id(address: str) -> str:
    """The identifier within the address of a paper, without its version.

    >>> short_id("http://arxiv.org/abs/2409.10559v2")
    '2409.10559'
    """
    return re.sub(r"v\d+$", "", address.rpartition("/abs/")[2])


def plain(text: str | None) -> str:
    """Text on one line, without characters that steer a terminal."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text or "")).strip()
