"""A short review whose adjective and verb give away the verdict that follows. Tigges et al. 2023 (ToyMovieReview)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, filled, shuffled, singles, table


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "To me this movie felt ADJECTIVE, and I VERB it. In short, this movie was": a good word or a bad one?

    Three wordings (label template), positive and negative reviews (label positive) in turn. Positions: adjective, verb, summary (the
    last "movie", "film" or "show", where a summary can form), end. Metric: mean logit of the answers of the review's
    class minus that of the other's; since the classes are of one size, the model's liking for one cancels in the mean.
    Counterfactual: adjective and verb of the other class. Control: one of each class.
    """
    data = table("movie_review", family)
    kinds = ("negative", "positive")
    answers = [list(singles(tokenizer, data["answers"][kind]).values()) for kind in kinds]
    adjectives, verbs = (
        [sorted(singles(tokenizer, data[what][kind][half])) for kind in kinds] for what in ("adjectives", "verbs")
    )
    size = min(map(len, answers))  # so that both classes average over as many words
    if size == 0 or min(map(len, adjectives + verbs)) < 2:
        raise UnfitTask("movie-review needs words of praise and blame that are one token; this tokenizer splits them.")

    def examples(kind: int) -> Iterator[Example]:
        every = itertools.product(enumerate(data["templates"]), adjectives[kind], verbs[kind])
        for (number, template), *own in shuffled(every, rng):
            other = [str(rng.choice(words[1 - kind])) for words in (adjectives, verbs)]
            mixed = [own[0], other[1]] if rng.integers(2) else [other[0], own[1]]
            prompts = [
                _marked(filled(template["text"], adjective=a, verb=v), template["summary"])
                for a, v in (own, other, mixed)
            ]
            labels = {"template": number, "positive": kind}
            yield Example(prompts, answers[kind][:size], answers[1 - kind][:size], labels)

    sources = [examples(kind) for kind in (1, 0)]
    return collect("movie-review", tokenizer, n, sources, words=("adjective", "verb", "summary"), half=half)


def _marked(pieces: list[Piece], summary: str) -> list[Piece]:
    """The pieces with the last mention of the summary word as one of its own."""
    before, _, after = pieces[-1].text.rpartition(f" {summary}")
    return [*pieces[:-1], Piece(before), Piece(f" {summary}", "summary"), Piece(after)]


movie_review, movie_review_held_out = halves(
    "movie-review", _build, metric=logit_difference, version=1, margin=0.5, second="Reviews of novels and dinners."
)
