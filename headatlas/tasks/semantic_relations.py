"""Words in a list, and one that is part of, used for or a kind of one of them: which? Ren et al. 2024."""

from __future__ import annotations

import functools

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, filled, forever, shuffled, singles, table

LISTED = 4


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "Words: car, flower, bird, tree. The wheel is part of the": car.

    Three relations in turn (label relation: the place in facts["relations"]). Positions: head (all tokens of the word that is asked
    about; head_last its last), tail (the right one in the list), other (the three others), end. Metric: logit of the right word minus the
    mean of the others'. Counterfactual: the word asked about belongs to another one of the list. Control: to none of them.
    """
    data = table("semantic_relations", family)
    front, back = data["frame"].split(" {head}")

    def draw(number: int) -> Example:
        relation, template = list(data["templates"].items())[number]
        pairs = dict(pair.split(": ") for pair in data["pairs"][relation][half])
        ids = singles(tokenizer, pairs.values())
        if len(ids) <= LISTED:
            raise UnfitTask("semantic-relations needs words that are one token; this tokenizer splits them.")
        listed = shuffled(ids, rng)[:LISTED]
        heads = {tail: head for head, tail in pairs.items()}
        strangers = [heads[tail] for tail in ids if tail not in listed]
        right = int(rng.integers(LISTED))
        other = int(rng.choice([i for i in range(LISTED) if i != right]))

        def prompt(head: str, tail: int) -> list[Piece]:
            words = {f"w{i + 1}": word for i, word in enumerate(listed)}
            pieces = filled(front, **words)
            named = [
                piece._replace(role="" if not piece.role else "tail" if piece.role == f"w{tail + 1}" else "other")
                for piece in pieces
            ]
            return [*named, Piece(f" {head}", "head"), Piece(back + template)]

        drawn = (heads[listed[right]], heads[listed[other]], str(rng.choice(strangers)))
        wrong = [ids[word] for i, word in enumerate(listed) if i != right]
        return Example([prompt(head, right) for head in drawn], [ids[listed[right]]], wrong, {"relation": number})

    relations = list(data["templates"])
    sources = [forever(functools.partial(draw, number)) for number in range(len(relations))]
    return collect(
        "semantic-relations", tokenizer, n, sources, words=("tail",), spans=("head",), half=half, relations=relations
    )


semantic_relations, semantic_relations_held_out = halves(
    "semantic-relations",
    _build,
    metric=logit_difference,
    version=1,
    margin=0.3,
    second="Other words around the list and for each relation.",
)
