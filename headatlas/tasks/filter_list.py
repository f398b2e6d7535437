"""Lists of words of different kinds, and the question for the one that is of a kind. Sen Sharma et al. 2025."""

from __future__ import annotations

import functools

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import (
    FIRST,
    Example,
    Piece,
    Pieces,
    collect,
    forever,
    pick,
    shuffled,
    table,
)
from headatlas.tasks._word_kinds import word_kinds

LENGTH = 5  # items of a list


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "List: apple, dog, chair, lawyer, red.\\nThe only fruit in the list is the": which of the five?

    Each item is of another kind, and the one that is asked for has each place in turn (label place: 0 to 4). Positions: item (the five words),
    kind (the one asked for), end. Metric: logit of the right item minus the mean of the others'; the first of the wrong ones is the item that
    is of the kind that the counterfactual asks for. Counterfactual: another list, of other words, and another kind of the first list's is asked
    for. Control: that other list, and asked for is a kind that the first list has nothing of.
    """
    form, ids = table("filter_list", family), word_kinds(tokenizer, half, 3)
    if len(ids) < LENGTH + 2:
        raise UnfitTask("filter-list needs words and their kinds in one token each; this tokenizer splits them.")

    def draw(place: int) -> Example:
        kinds = pick(list(ids), rng, LENGTH + 1)
        *own, absent = kinds
        own[0], own[place] = own[place], own[0]
        other = own[(place + 1 + int(rng.integers(LENGTH - 1))) % LENGTH]
        here = [(kind, pick(list(ids[kind]), rng, 1)[0]) for kind in own]
        rest = pick([kind for kind in ids if kind not in (other, absent, own[place])], rng, LENGTH - 2)
        used = [word for _, word in here]
        there = shuffled([(kind, pick([w for w in ids[kind] if w not in used], rng, 1)[0]) for kind in (other, absent, *rest)], rng)  # fmt: skip
        prompts = [_prompt(here, own[place]), _prompt(there, other), _prompt(there, absent)]
        wrong = [one for one in here if one[0] == other] + [one for one in here if one[0] not in (other, own[place])]
        answer = ids[own[place]][here[place][1]]
        return Example(prompts, [answer], [ids[kind][word] for kind, word in wrong], {"place": place})

    def _prompt(items: list[tuple[str, str]], kind: str) -> Pieces:
        before, behind = form["ask"].split(" {kind}")
        pieces = [Piece(form["list"])]
        for i, (_, word) in enumerate(items):
            pieces += [*([Piece(",")] if i else []), Piece(f" {word}", "item")]
        return [*pieces, Piece(before), Piece(f" {kind}", "kind"), Piece(behind)]

    sources = [forever(functools.partial(draw, place)) for place in range(LENGTH)]
    return collect("filter-list", tokenizer, n, sources, words=("kind",), half=half)


filter_list, filter_list_held_out = halves(
    "filter-list",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.3,
    second="Which of these is a kind of ...? Answer:",
)
