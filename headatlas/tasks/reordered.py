"""Sentences in one order for the encoder, in another for the decoder: where does it look for what it has to write?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges, next_token_loss, task
from headatlas.tasks._prompts import lists
from headatlas.tasks._two_stacks import paired

LENGTH = 64  # tokens of a text; shorter where the model reads less
FEWEST, MOST = 3, 6  # sentences of a text
KEPT = 6  # tokens that a text has once
PEOPLE = (
    "Anna", "Martin", "Laura", "Daniel", "Nina", "Robert", "Eva", "Thomas", "Clara", "David", "Sofia", "Oskar", "Emma",
    "Felix", "Ida", "Hugo", "Lena", "Viktor", "Marta", "Simon", "Julia", "Paul", "Sara", "Peter",
)  # fmt: skip
CITIES = (
    "Berlin", "Madrid", "Oslo", "Toronto", "Lima", "Boston", "Dublin", "Kyoto", "Nairobi", "Helsinki", "Budapest", "Zagreb",
    "Lisbon", "Cairo", "Delhi", "Denver",
)  # fmt: skip
FRAMES = ("{who} paid {number} dollars in {city}.",)
OTHER_FRAMES = ("In {city}, {who} found {number} books.",)


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Sentences about books that begin with the city."""
    return _built(tokenizer, n, rng, OTHER_FRAMES)


@task(metric=next_token_loss, version=1, margin=0.1, second=_second)
def reordered(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Three to six sentences for the encoder, up to 64 tokens, and the same in another order for the decoder.

    Each says who paid how much in which city: words that a translation keeps. labels["kept"]: ids that the encoder's text has once, in its order.
    An encoder-decoder is measured by its own loss (`measured_by`), a translator by what it writes for the encoder's text. Control: the
    words of either text in random order.
    """
    return _built(tokenizer, n, rng, FRAMES)


def _built(tokenizer: Vocabulary, n: int, rng: np.random.Generator, frames: Sequence[str]) -> Batch:
    front, back = edges(tokenizer)
    room = min(LENGTH, tokenizer.context) - len(front) - len(back) - 1  # the encoder ends its text
    read: list[list[int]] = []
    written: list[list[int]] = []
    mixed = []
    for _ in range(n):
        sentences = _sentences(rng, frames)
        while len(tokenizer.encode(" ".join(sentences))) > room:
            sentences = sentences[:-1]
            if len(sentences) < FEWEST:
                raise UnfitTask(f"reordered needs {FEWEST} sentences in {max(room, 0)} tokens.")
        for texts, order in ((read, range(len(sentences))), (written, _other_order(len(sentences), rng))):
            texts.append(tokenizer.encode(" ".join(sentences[i] for i in order)))
        words = " ".join(sentences).split()
        mixed.append([tokenizer.encode(" ".join(words[i] for i in rng.permutation(len(words)))) for _ in range(2)])
    kept = [[token for token, count in Counter(row).items() if count == 1] for row in read]
    if min(map(len, kept)) < KEPT:
        raise UnfitTask("reordered has names and numbers that this tokenizer does not tell apart.")
    batch = paired("reordered", tokenizer, read, written)
    control = paired("reordered", tokenizer, *(list(side) for side in zip(*mixed, strict=True)))
    return replace(
        batch,
        positions=_predicted(written, len(front)),
        labels={"kept": lists(kept)},
        control=replace(control, positions=_predicted([one[1] for one in mixed], len(front))),
    )


def _sentences(rng: np.random.Generator, frames: Sequence[str]) -> list[str]:
    people, cities = (rng.permutation(len(known))[:MOST] for known in (PEOPLE, CITIES))
    numbers = rng.choice(np.arange(13, 1000), MOST, replace=False)
    return [
        frames[i % len(frames)].format(who=PEOPLE[who], number=number, city=CITIES[city])
        for i, (who, number, city) in enumerate(zip(people, numbers, cities, strict=True))
    ]


def _other_order(n: int, rng: np.random.Generator) -> np.ndarray:
    """An order of `n` things that is not their own."""
    while True:
        order = rng.permutation(n)
        if (order != np.arange(n)).any():
            return order


def _predicted(rows: Sequence[Sequence[int]], front: int) -> dict[str, Tensor]:
    """Every place of a text that another of its tokens follows."""
    return {"predict": lists([[front + i for i in range(len(row) - 1)] for row in rows])}
