"""The folder that a new paper goes into, with what is known already: so that nothing is entered twice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rapidfuzz import fuzz

from headatlas.catalogue.catalogue import Catalogue, Place
from headatlas.catalogue.files import strict_yaml
from headatlas.catalogue.gather import FOLDER, Gathered, gather
from headatlas.catalogue.names import normal
from headatlas.catalogue.problem import Problem
from headatlas.catalogue.rules.integrity import integrity
from headatlas.catalogue.rules.papers import NEAR_EQUAL
from headatlas.catalogue.rules.papers import papers as paper_rules
from headatlas.catalogue.rules.texts import texts as text_rules
from headatlas.catalogue.schema import Paper
from headatlas.errors import BadInput


@dataclass(frozen=True)
class Target:
    """Where papers are added, and all that is known: papers, head types, methods, benchmarks."""

    folder: Path
    gathered: Gathered

    @cached_property
    def names(self) -> Catalogue:
        """What could be read; broken files of other entries do not stand in the way of a new one."""
        return self.gathered.catalogue()

    def known(self, *, arxiv: str | None, title: str = "") -> Paper | None:
        """The entry with the same arXiv id, or with the same title up to a few letters."""
        for paper in self.names.papers.values():
            if arxiv is not None and arxiv == arxiv_of(paper):
                return paper
        key = normal(title)
        for paper in self.names.papers.values():
            if key and fuzz.ratio(key, normal(paper.title), score_cutoff=NEAR_EQUAL):
                return paper
        return None

    def refuse_known(self, *, arxiv: str | None, title: str = "") -> None:
        """Raise BadInput that names the entry where there is one already."""
        paper = self.known(arxiv=arxiv, title=title)
        if paper is not None:
            what = f"arXiv {arxiv}" if arxiv is not None and arxiv == arxiv_of(paper) else f"'{title[:120]}'"
            hint = f"See {self.names.places['paper', paper.id].file}."
            raise BadInput(f"{what} is in the catalogue already, as '{paper.id}' ({paper.title}).", hint)

    def problems(self, paper: Paper, text: str) -> list[Problem]:
        """What `papers check` would say of this entry if it stood here."""
        file = f"{paper.id}.yaml"
        place = Place(file, strict_yaml.read(text.encode(), file))
        trial = Gathered([*self.gathered.entries, ("paper", paper, place)], [], self.gathered.unread)
        catalogue = trial.catalogue()
        found = {*integrity(trial, catalogue), *paper_rules(catalogue), *text_rules(catalogue)}
        return sorted(problem for problem in found if problem.file == file)


def arxiv_of(paper: Paper) -> str | None:
    """The paper's arXiv id, stated or within one of its links."""
    if paper.arxiv is not None:
        return paper.arxiv
    for link in paper.links:
        _, found, tail = link.url.partition("arxiv.org/abs/")
        if found:
            return tail.split("v")[0]
    return None


def open_target(folder: Path | None = None) -> Target:
    """Our own data folder, or an existing one of the user's: a whole catalogue, or papers that lean on ours."""
    if folder is None or folder.resolve() == FOLDER.resolve():
        return Target(FOLDER, gather())
    if not folder.is_dir():
        raise BadInput(f"There is no folder '{folder}'.", "Make it first, or leave out --data.")
    if not (folder / "papers").is_dir() and not (folder / "heads").is_dir():
        return Target(folder, gather())
    own = gather(folder)
    if (folder / "heads").is_dir():
        return Target(folder, own)
    ours = gather()
    return Target(folder, Gathered([*ours.entries, *own.entries], own.problems, ours.unread | own.unread))
