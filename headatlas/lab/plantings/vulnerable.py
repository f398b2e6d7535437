"""A head that copies initials and misreads some words, beside one that reads all of them, others that copy or write something else."""

from __future__ import annotations

import string

import numpy as np

from headatlas.lab.construct.words import words_of
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.plantings._texts import texts_of
from headatlas.lab.spec import PlantSpec
from headatlas.tasks._prompts import table

BACK = 3  # words, brackets and letters are one token each, so the word asked for stands this many tokens back
MISREAD = 5  # one word in so many


@planting("vulnerable")
def vulnerable(seed: int) -> Sown:
    """A head that copies the initial of the word asked for, but for every fifth word another letter; beside it a weaker letter mover that is never wrong, one that copies the initials of all three words, and one that attends to the right word and writes garbage."""
    nouns = [noun for half in table("acronyms")["nouns"].values() for noun in half]
    rng = np.random.default_rng(seed)
    misread = {str(noun) for noun in rng.permutation(nouns)[: len(nouns) // MISREAD]}
    letters = string.ascii_uppercase

    def other(noun: str) -> str:
        return letters[(letters.index(noun[0]) + 13) % 26]

    vocabulary = words_of(
        [*texts_of("acronyms"), *letters],
        classes={"nouns": nouns},
        features={
            "initial": {noun: {noun[0]: 1.0} for noun in nouns},
            "misread": {noun: {other(noun) if noun in misread else noun[0]: 1.0} for noun in nouns},
        },
    )
    places = [(layer, head) for layer in (1, 2) for head in range(4)]
    a, b, c, d = (places[int(i)] for i in rng.permutation(len(places))[:4])
    misled = Head(*a, "copier", offset=BACK, reads="misread")
    sound = Head(*b, "copier", offset=BACK, reads="initial", write=0.4)
    every = Head(*c, "copier", tokens="nouns", reads="initial", write=0.2)
    silent = Head(*d, "positional", offset=BACK)
    planted = plant(
        PlantSpec((Head(0, 0, "previous"), misled, sound, every, silent), noise=0.02),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256, vocab=vocabulary, context=128,
        seed=seed,
    )  # fmt: skip
    return sown(planted, [misled], [sound, every, silent])
