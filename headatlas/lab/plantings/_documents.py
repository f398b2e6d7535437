"""Heads that look from a question to short texts, each of which may answer it."""

from __future__ import annotations

import numpy as np

from headatlas.lab.construct.words import words_of
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.plantings._texts import texts_of
from headatlas.lab.spec import PlantSpec
from headatlas.tasks._prompts import table
from headatlas.tasks.documents import DOCUMENTS


def asked_documents(seed: int) -> Sown:
    """Two heads that attend to earlier copies of the current token, of which the text that answers has most.

    Look-alikes: heads that attend to every city, whatever is asked or only from the words before a city, to the number of the
    first text or of the last, and to the token before.
    """
    words = table("needle")
    cities = [city for half in words["cities"].values() for city in half]
    answers = [word for half in words["words"].values() for word in half]
    texts = [*texts_of("documents"), *answers]
    ends = {"first": ["1"], "last": [str(DOCUMENTS)]}
    classes = {"cities": cities, "answers": answers, **ends}
    vocabulary = words_of(texts, classes=classes, more=list("0123456789"))
    rng = np.random.default_rng(seed)
    at = [[int(head) for head in rng.permutation(4)] for _ in range(3)]
    previous = Head(0, at[0][0], "previous")
    copies = (Head(1, at[1][0], "duplicate"), Head(2, at[2][0], "duplicate", write=0.5))
    others = (
        Head(1, at[1][1], "copier", tokens="cities", to="junk"),
        Head(2, at[2][1], "fetcher", tokens="cities", to="junk"),
        Head(1, at[1][2], "copier", tokens="first", to="junk"),
        Head(2, at[2][2], "copier", tokens="last", to="junk"),
    )
    planted = plant(
        PlantSpec((previous, *copies, *others), noise=0.02),
        architecture="llama", n_layers=3, n_heads=4, width=384, d_head=96, vocab=vocabulary, context=256, seed=seed,
    )  # fmt: skip
    return sown(planted, copies, [*others, previous])
