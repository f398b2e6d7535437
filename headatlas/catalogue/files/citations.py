"""Which papers of the list a text cites, as docstrings do: "Wang et al. 2022", "Luo 2021".

What cites a paper where it states its formula, measures what the paper measures; so a detector's papers are those that its
formula names, not all that know its head type.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.detector_names import FOLDER, declared
from headatlas.catalogue.schema import Paper

_CITATION = re.compile(
    r"(?P<family>[A-ZÀ-Ý][\w’'-]+)(?P<more> et al\.| (?:and|&) (?P<second>[A-ZÀ-Ý][\w’'-]+))?,? \(?(?P<year>\d{4})\b"
)


class Citation(NamedTuple):
    """A work as a text names it: family name of the first author, of the second ("" where others are named together), year.

    alone: whether nobody else is named, so that only a work of one author is meant.
    """

    first: str
    second: str
    year: int
    alone: bool = False


def citations(text: str) -> list[Citation]:
    """Every work that a text names, in its order."""
    found = (
        Citation(match["family"], match["second"] or "", int(match["year"]), match["more"] is None)
        for match in _CITATION.finditer(" ".join(text.split()))
    )
    return list(dict.fromkeys(found))


def cited(catalogue: Catalogue, text: str, head_type: str | None = None) -> tuple[str, ...]:
    """The ids of the list's papers that a text names, in its order; works outside the list are left out.

    Where a name and a year fit several papers, those on the head type are meant (a user's own type has none); where that does not decide, none is given.
    """
    near = (
        {paper.id for paper in catalogue.papers_for(head_type)} if head_type and head_type in catalogue.heads else set()
    )
    found = []
    for work in citations(text):
        fits = [paper.id for paper in catalogue.papers.values() if _is(paper, work)]
        meant = [id_ for id_ in fits if id_ in near] or fits
        found += meant if len(meant) == 1 else []
    return tuple(dict.fromkeys(found))


def detectors_citing(catalogue: Catalogue, folder: Path = FOLDER) -> dict[str, tuple[str, ...]]:
    """Paper id -> names of our detectors whose formula cites it, read from their files."""
    found: dict[str, list[str]] = {}
    for one in declared(folder):
        for paper in cited(catalogue, formula(one.doc), one.head_type):
            found.setdefault(paper, []).append(one.name)
    return {paper: tuple(sorted(names)) for paper, names in found.items()}


def formula(doc: str) -> str:
    """What a detector's docstring says between "Formula:" and "Chance:"."""
    return " ".join(doc.split()).partition("Formula: ")[2].partition(" Chance: ")[0]


def _is(paper: Paper, work: Citation) -> bool:
    """Whether a paper is by these authors and of this year: of its first version, its preprint or its venue."""
    years = {paper.date.year, *(int(one) for one in re.findall(r"\b(?:19|20)\d{2}\b", paper.venue or ""))}
    if paper.arxiv:
        years.add(2000 + int(paper.arxiv[:2]))
    named = zip((work.first, work.second) if work.second else (work.first,), paper.authors, strict=False)
    known = len(paper.authors) == 1 if work.alone else len(paper.authors) >= (2 if work.second else 1)
    return work.year in years and known and all(_plain(author).endswith(_plain(family)) for family, author in named)


def _plain(name: str) -> str:
    """Small letters without accents and signs, from which spellings of a name do not differ."""
    letters = unicodedata.normalize("NFKD", name).lower()
    return "".join(letter for letter in letters if letter.isalpha())
