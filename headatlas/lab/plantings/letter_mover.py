"""Letter movers, which copy the initial of the word asked for, and heads that copy another initial or none."""

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


@planting("letter-mover")
def letter_mover(seed: int) -> Sown:
    """A head that copies the initial of the word asked for; beside it one that copies that of all three words alike, one that copies the initial of the word before, and one that attends to the right word and writes garbage."""
    nouns = [noun for half in table("acronyms")["nouns"].values() for noun in half]
    vocabulary = words_of(
        [*texts_of("acronyms"), *string.ascii_uppercase],
        classes={"nouns": nouns},
        features={"initial": {noun: {noun[0]: 1.0} for noun in nouns}},
    )
    rng = np.random.default_rng(seed)
    places = [(layer, head) for layer in (1, 2) for head in range(4)]
    a, b, c, d = (places[int(i)] for i in rng.permutation(len(places))[:4])
    right = Head(*a, "copier", offset=BACK, reads="initial")
    every = Head(*b, "copier", tokens="nouns", reads="initial", write=0.3)
    other = Head(*c, "copier", offset=BACK + 1, reads="initial", write=0.3)
    silent = Head(*d, "positional", offset=BACK)
    planted = plant(
        PlantSpec((Head(0, 0, "previous"), right, every, other, silent), noise=0.02),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256, vocab=vocabulary, context=128,
        seed=seed,
    )  # fmt: skip
    return sown(planted, [right], [every, other, silent])
