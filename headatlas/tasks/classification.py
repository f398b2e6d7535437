"""Words of three kinds, each with the name of its kind, and one more word: in-context classification. Yang et al. 2025."""

from __future__ import annotations

import functools

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, collect, filled, forever, pick, shuffled, singles, table
from headatlas.tasks._word_kinds import word_kinds

KINDS = 3  # labels of a prompt
SHOTS = 3  # examples of each


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] nine times "Word: apple, Type: fruit", three words of each of three kinds, then a new word of one of them: which kind?

    The right kind is shown first, second or third in turn (label right). Positions: word (the nine), label (the nine), query, end. Metric:
    logit of the right kind minus the mean of the other two. Counterfactual: the same words, and in place of each of the three labels the name
    of a kind that none of them is of. Control: the three labels follow no rule: each stands once at a word of each kind.
    """
    form, kinds = table("classification", family), word_kinds(tokenizer, half, SHOTS + 1)
    if len(kinds) < 2 * KINDS:
        raise UnfitTask("classification needs words and their kinds in one token each; this tokenizer splits them.")
    ids = singles(tokenizer, kinds)

    def draw(right: int) -> Example:
        chosen = pick(list(kinds), rng, 2 * KINDS)
        own, other = chosen[:KINDS], chosen[KINDS:]
        words = [pick(list(kinds[kind]), rng, SHOTS + 1) for kind in own]
        # (word, its kind, the kind whose label it has where labels follow no rule)
        turns = [shuffled(range(KINDS), rng) for _ in range(KINDS)]
        shown = [(words[kind][i], kind, turns[kind][i]) for kind in range(KINDS) for i in range(SHOTS)]
        shown = shuffled(shown, rng)
        order = list(dict.fromkeys(kind for _, kind, _ in shown))
        asked = order[right]
        query = words[asked][SHOTS]
        prompts = [
            [piece for word, kind, mixed in shown for piece in filled(form["shot"], word=word, label=labels[(kind, mixed)[which]])]
            + filled(form["ask"].replace("{word}", "{query}"), query=query)
            for labels, which in ((own, 0), (other, 0), (own, 1))
        ]  # fmt: skip
        wrong = [ids[kind] for i, kind in enumerate(own) if i != asked]
        return Example(prompts, [ids[own[asked]]], wrong, {"right": right})

    sources = [forever(functools.partial(draw, right)) for right in range(KINDS)]
    return collect("classification", tokenizer, n, sources, words=("query",), half=half)


classification, classification_held_out = halves(
    "classification",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.3,
    second="Sentences that say of each word of what kind it is.",
)
