"""How much a text reads like the papers of the catalogue, as a number whose parts can be shown.

The score is a sum of two things: the cosine between the text and the mean of the catalogue's papers (TF-IDF over
single words and pairs of words), and a bonus for each head type that the text names. It does not depend on the other
candidates, so scores of different days can be compared.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from headatlas.catalogue.curation.propose import Proposal, head_types
from headatlas.catalogue.schema import HeadType, Paper
from headatlas.errors import BadInput

NAME_BONUS = 0.1  # for each head type named outright
NAMES_COUNTED = 3

_WORD = re.compile(r"\b[^\W\d_]\w+")


@dataclass(frozen=True)
class Likeness:
    """A score with its reasons."""

    score: float
    cosine: float
    terms: tuple[str, ...]  # what the text and the catalogue share most, best first
    heads: tuple[Proposal, ...]  # head types named outright
    nearest: tuple[tuple[str, float], ...]  # catalogue papers and their cosine, best first


def paper_text(paper: Paper) -> str:
    """What the catalogue says of a paper in words: title and summary."""
    parts = [paper.title]
    if paper.summary is not None:
        parts += [paper.summary.innovation, paper.summary.tasks, paper.summary.result]
    return ". ".join(parts)


@lru_cache(maxsize=2000)
def terms(text: str) -> tuple[str, ...]:
    """Words and neighbouring pairs, in small letters, plurals folded into singulars, stop words left out."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = [_single(word) for word in _WORD.findall(text.lower()) if word not in ENGLISH_STOP_WORDS]
    return (*words, *(f"{first} {second}" for first, second in itertools.pairwise(words)))


def _single(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


class Scorer:
    """Fitted to a catalogue once, then asked about any text."""

    def __init__(self, papers: Iterable[Paper], heads: Iterable[HeadType]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.heads = tuple(heads)
        names = {head.id: head.name for head in self.heads}
        known = list(papers)
        if not known:
            raise BadInput("The catalogue has no papers to compare with.", "Check the --data folder.")
        self.ids = [paper.id for paper in known]
        texts = [". ".join([paper_text(p), *(names[h] for h in p.heads if h in names), *p.tags]) for p in known]
        self._vectoriser = TfidfVectorizer(analyzer=terms, sublinear_tf=True)
        self._papers = self._vectoriser.fit_transform(texts)
        mean = np.asarray(self._papers.mean(axis=0)).ravel()
        self._mean = mean / np.linalg.norm(mean)
        self._terms: Sequence[str] = self._vectoriser.get_feature_names_out()

    def score(self, title: str, abstract: str) -> Likeness:
        """How much this paper is like those of the catalogue."""
        return self.score_all([(title, abstract)])[0]

    def score_all(self, candidates: Sequence[tuple[str, str]]) -> list[Likeness]:
        """The same for many, given as title and abstract; none of them matters for another one's score."""
        rows = self._vectoriser.transform([f"{title}. {abstract}" for title, abstract in candidates])
        shares = rows.multiply(self._mean).tocsr()
        near = (rows @ self._papers.T).toarray()
        return [self._likeness(candidate, shares[n], near[n]) for n, candidate in enumerate(candidates)]

    def _likeness(self, candidate: tuple[str, str], shares: Any, near: Any) -> Likeness:
        title, abstract = candidate
        named = tuple(proposal for proposal in head_types(title, abstract, self.heads) if proposal.sure)
        cosine = float(shares.data.sum())
        best = sorted(zip(shares.data, shares.indices, strict=True), key=lambda item: (-item[0], item[1]))
        return Likeness(
            score=cosine + NAME_BONUS * min(len(named), NAMES_COUNTED),
            cosine=cosine,
            terms=tuple(str(self._terms[column]) for _, column in best[:6]),
            heads=named,
            nearest=tuple((self.ids[i], float(near[i])) for i in np.argsort(-near, kind="stable")[:3] if near[i] > 0),
        )
