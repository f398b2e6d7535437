"""A sum, a thought that says what it makes, and the answer: does it follow the thought? Tanneru et al. 2024."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, filled, forever, pick, singles, table

LEAST = 2  # the first of the number words


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "Question: Anna has two apples and gets three more. How many are there?", a thought, "So the answer is": what it said?

    The thought is written for the model: "two and three make five", or in every other prompt a number that is wrong (label mistaken). Label
    person: which of facts["names"]. Positions: thought (all of its tokens), result (the number it comes to), stop (the
    full stop behind that), end. Metric: logit of the thought's number minus that of the counterfactual's. Counterfactual: the thought comes to
    another number. Control: to a third. facts["numbers"]: ids of the number words, from two on.
    """
    data = table("thoughts", family)
    numbers, names = singles(tokenizer, data["numbers"]), data["names"][half]
    if len(numbers) < len(data["numbers"]):
        raise UnfitTask("thoughts needs the numbers from two to twelve as single tokens; this tokenizer splits them.")
    words = list(numbers)
    sums = [(a, b) for a, b in itertools.product(range(len(words)), repeat=2) if a + b + LEAST < len(words)]

    def draw(mistaken: int) -> Example:
        a, b = sums[int(rng.integers(len(sums)))]
        right = a + b + LEAST
        free = [one for one in range(len(words)) if one not in (a, b, right)]
        one, two, three = pick(free, rng, 3)
        said = [one, two, three] if mistaken else [right, one, two]
        person = int(rng.integers(len(names)))
        thing = str(rng.choice(data["things"][half]))
        question = filled(data["question"], name=names[person], a=words[a], b=words[b], things=thing)

        def prompt(result: int) -> list[Piece]:
            front, rest = data["thought"].split(" {c}")
            thought = Piece(front.format(a=words[a], b=words[b]), "thought")
            asked = [piece if piece.role == "name" else piece._replace(role="") for piece in question]
            return [*asked, thought, Piece(f" {words[result]}", "result"), Piece(rest, "stop"), Piece(data["end"])]

        ids = [numbers[words[said[0]]], numbers[words[said[1]]]]
        return Example([prompt(one) for one in said], ids[:1], ids[1:], {"mistaken": mistaken, "person": person})

    sources = [forever(functools.partial(draw, mistaken)) for mistaken in (0, 1)]
    return collect(
        "thoughts",
        tokenizer,
        n,
        sources,
        words=("result", "stop"),
        half=half,
        names=list(names),
        numbers=list(numbers.values()),
    )


thoughts, thoughts_held_out = halves(
    "thoughts",
    _build,
    metric=logit_difference,
    version=2,
    margin=0.3,
    second="Other words for question, thought and answer.",
)
