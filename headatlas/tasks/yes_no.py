"""Questions to be answered with yes or no, half of them each way: does the model answer, or always say the same? Yu et al. 2024."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_margin
from headatlas.tasks._pairs import pairs
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, filled, singles, table


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "Answer the question with Yes or No.", the question, "Answer:": yes or no?

    Questions answered yes and no (label yes) come in turn, and so do both orders of the two words in the instruction (label yes_first):
    four kinds. Label pair names two questions that differ in a word (or the order of two); the halves share no pair. Positions: yes, no (the words of the
    instruction), decisive (all tokens of the words that decide), stop, end. Metric: logit of the right answer minus that of the wrong
    one, whichever of "Yes" and "yes" ("No" and "no") is higher. Counterfactual: the pair's other question. Control: the
    deciding words come from another topic.
    """
    data = table("yes_no", family)
    words = {kind: data["answers"][kind] for kind in ("negative", "positive")}
    ids = [list(singles(tokenizer, words[kind]).values()) for kind in ("negative", "positive")]
    if any(len(found) != len(known) for found, known in zip(ids, words.values(), strict=True)):
        raise UnfitTask("yes-no needs 'yes' and 'no' as single tokens; this tokenizer splits them.")

    def examples(yes: int, yes_first: int) -> Iterator[Example]:
        said = [words["positive"][0], words["negative"][0]]
        first, second = said if yes_first else said[::-1]
        names = {"first": "yes" if yes_first else "no", "second": "no" if yes_first else "yes"}
        for instruction in data["instructions"]:
            front = [
                Piece(piece.text, names.get(piece.role, ""))
                for piece in filled(instruction, first=first, second=second)
            ]
            for pair in pairs(data["topics"], 1 - yes, half, rng):
                prompts = [
                    [*front, Piece(data["frame"][0]), *part, Piece(data["frame"][1])]
                    for part in (pair.own, pair.other, pair.nonsense)
                ]
                labels = {"yes": yes, "yes_first": yes_first, "topic": pair.topic, "pair": pair.number}
                yield Example(prompts, ids[yes], ids[1 - yes], labels)

    sources = [examples(yes, yes_first) for yes_first in (1, 0) for yes in (1, 0)]
    return collect("yes-no", tokenizer, n, sources, words=("yes", "no", "stop"), half=half, topics=list(data["topics"]))


yes_no, yes_no_held_out = halves(
    "yes-no", _build, metric=logit_margin, version=1, margin=0.3, second="A quiz in Q: and A:, with other instructions."
)
