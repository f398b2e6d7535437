"""How pages write dates, names and evidence."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Sequence

from headatlas.catalogue.schema import Paper
from headatlas.renamed import old_names

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
EVIDENCE = {
    "measured": "measured by us",
    "code": "read in the authors' code",
    "paper": "read in the paper's text",
    "reference": "read in a reference note that names its sources",
    "abstract": "read in the abstract",
    "secondary": "read in somebody else's account",
    "upstream": "as the awesome list or the survey states it",
    "recall": "recalled, not checked against a source",
}
# A model's size or variant: what follows the name of its family.
_VARIANT = re.compile(r"[-\s](?:\d+x)?\d+(?:\.\d+)?[bmk]\b|[-\s](?:small|medium|large|xl|base|mini)\b", re.I)


def month(day: datetime.date) -> str:
    """`Sep 2024`."""
    return f"{MONTHS[day.month - 1]} {day.year}"


def slug(text: str) -> str:
    """The text as a part of an address: ASCII letters and digits, other runs of signs as one dash.

    >>> slug("Llama-3.1 8B"), slug("Gödel & co")
    ('llama-3-1-8b', 'godel-co')
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "other"


def family(model: str) -> str:
    """The model's name without its size and variant.

    >>> family("Llama-2-7B-chat"), family("GPT-2 small"), family("Mixtral-8x7B"), family("GPT-J")
    ('Llama-2', 'GPT-2', 'Mixtral', 'GPT-J')
    """
    found = _VARIANT.search(model)
    return model[: found.start()] if found and found.start() else model


def series(venue: str) -> str:
    """The venue without the year: `Findings of ACL 2024` is of the series `Findings of ACL`."""
    return re.sub(r"\s+\d{4}\b", "", venue).strip() or venue


def authors(paper: Paper, most: int = 4) -> str:
    """The authors on one line; of many, the first ones."""
    if len(paper.authors) <= most + 1:
        return ", ".join(paper.authors)
    return f"{', '.join(paper.authors[:most])} and {len(paper.authors) - most} others"


def known_from(evidence: Sequence[str]) -> str:
    """What a statement rests on, in words: `read in the abstract; recalled, not checked against a source`."""
    return "; ".join(EVIDENCE[kind] for kind in evidence)


def cited(paper: Paper) -> str:
    """The paper as a sentence names it: `Wang et al. 2023`; its title where no author is known."""
    if not paper.authors:
        return f"{paper.title} ({paper.date.year})"
    surnames = [name.split()[-1] for name in paper.authors]
    names = " and ".join(surnames) if len(surnames) <= 2 else f"{surnames[0]} et al."
    return f"{names} {paper.date.year}"


__getattr__ = old_names(__name__)
