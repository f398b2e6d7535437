"""Praise and blame under labels that mean nothing: which is which, only examples tell. Yu and Ananiadou 2024."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, forever, pick, shuffled, singles, table

SHOTS = 8  # half of them of either kind
LABELS = ("foo", "bar")


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] eight times "Review: It was ADJECTIVE. Label: foo" or "bar", then a new review: foo or bar?

    Praise has either label in turn (label praise_is: 0 foo, 1 bar), praise and blame are asked for in turn (label positive).
    Positions: label (the eight labels), word (the eight adjectives), query (the last one's), end. Metric: logit of the right label
    minus the other's. Counterfactual: all labels exchanged. Control: labels that follow no rule, as many of either.
    """
    data, form = table("movie_review"), table("foo_bar", family)
    labels = singles(tokenizer, LABELS)
    words = [sorted(singles(tokenizer, data["adjectives"][kind][half])) for kind in ("negative", "positive")]
    if len(labels) < 2 or min(map(len, words)) <= SHOTS // 2:
        raise UnfitTask("foo-bar needs labels and adjectives that are one token; this tokenizer splits them.")

    def draw(positive: int, praise_is: int) -> Example:
        kinds = shuffled([0, 1] * (SHOTS // 2), rng)
        drawn = [iter(pick(words[kind], rng, SHOTS // 2 + (kind == positive))) for kind in (0, 1)]
        shown = [next(drawn[kind]) for kind in kinds]
        query = next(drawn[positive])
        right = [praise_is if kind else 1 - praise_is for kind in kinds]
        mixed = shuffled(right, rng)
        if mixed == right:
            mixed = [1 - one for one in right]
        prompts = []
        for given in (right, [1 - one for one in right], mixed):
            pieces = []
            for word, label in zip(shown, given, strict=True):
                pieces += _review(form, word, "word")
                pieces += [Piece(f" {LABELS[label]}", "label"), Piece(form["end"])]
            prompts.append([*pieces, *_review(form, query, "query")])
        answer = praise_is if positive else 1 - praise_is
        ids = [labels[LABELS[answer]], labels[LABELS[1 - answer]]]
        return Example(prompts, ids[:1], ids[1:], {"positive": positive, "praise_is": praise_is})

    sources = [forever(functools.partial(draw, *one)) for one in ((1, 0), (0, 0), (1, 1), (0, 1))]
    return collect("foo-bar", tokenizer, n, sources, words=("query",), half=half)


def _review(form: Mapping[str, str], word: str, role: str) -> list[Piece]:
    front, behind = form["review"].split(" {word}")
    return [Piece(front), Piece(f" {word}", role), Piece(behind)]


foo_bar, foo_bar_held_out = halves(
    "foo-bar",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.3,
    second="Opinions of dinners, in Input and Output.",
)
