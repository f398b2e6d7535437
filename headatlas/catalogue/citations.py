"""Which papers of the list a text cites, as docstrings do: "Wang et al. 2022", "Elhage et al. 2021".

What cites a paper where it states its formula, measures what the paper measures; so a detector's papers are those that its
formula names, not all that know its head type.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from headatlas.catalogue.catalogue import Catalogue
from headatlas.catalogue.detector_names import FOLDER, declared
from headatlas.catalogue.schema import Paper

_CITATION = re.compile(r"(?P<family>[A-ZÀ-Ý][\w’'-]+)(?: et al\.| (?:and|&) [A-ZÀ-Ý][\w’'-]+),? \(?(?P<year>\d{4})")


def citations(text: str) -> list[tuple[str, int]]:
    """(family name of the first author, year) of every work that a text names, in its order."""
    found = ((match["family"], int(match["year"])) for match in _CITATION.finditer(" ".join(text.split())))
    return list(dict.fromkeys(found))


def cited(catalogue: Catalogue, text: str, head_type: str | None = None) -> tuple[str, ...]:
    """The ids of the list's papers that a text names, in its order; works outside the list are left out.

    Where a name and a year fit several papers, those on the head type are meant; where that does not decide, none is given.
    """
    near = {paper.id for paper in catalogue.papers_for(head_type)} if head_type in catalogue.heads else set()
    found = []
    for family, year in citations(text):
        fits = [paper.id for paper in catalogue.papers.values() if _is(paper, family, year)]
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


def _is(paper: Paper, family: str, year: int) -> bool:
    """Whether a paper is by this first author and of this year: of its first version, its preprint or its venue."""
    years = {paper.date.year, *(int(one) for one in re.findall(r"\b(?:19|20)\d{2}\b", paper.venue or ""))}
    if paper.arxiv:
        years.add(2000 + int(paper.arxiv[:2]))
    return year in years and bool(paper.authors) and _plain(paper.authors[0]).endswith(_plain(family))


def _plain(name: str) -> str:
    """Small letters without accents and signs, from which spellings of a name do not differ."""
    letters = unicodedata.normalize("NFKD", name).lower()
    return "".join(letter for letter in letters if letter.isalpha())
