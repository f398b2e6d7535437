"""Heads that look from a question to the text about what it asks for."""

from __future__ import annotations

import numpy as np

from headatlas.lab.construct.words import words_of
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.plantings._texts import texts_of
from headatlas.lab.spec import PlantSpec
from headatlas.tasks._prompts import table


@planting("query-retrieval", examples=32)
def query_retrieval(seed: int) -> Sown:
    """Two heads that attend to earlier copies of the current token, of which the text that answers has most; beside them heads that attend to every city, whatever is asked or only from the words before a city, and one that attends to the token before."""
    words = table("needle")
    cities = [city for half in words["cities"].values() for city in half]
    answers = [word for half in words["words"].values() for word in half]
    texts = [*texts_of("documents"), *answers]
    vocabulary = words_of(texts, classes={"cities": cities, "answers": answers}, more=list("0123456789"))
    rng = np.random.default_rng(seed)
    at = [[int(head) for head in rng.permutation(4)] for _ in range(3)]
    previous = Head(0, at[0][0], "previous")
    copies = (Head(1, at[1][0], "duplicate"), Head(2, at[2][0], "duplicate", write=0.5))
    every, asked = (
        Head(1, at[1][1], "copier", tokens="cities", to="junk"),
        Head(2, at[2][1], "fetcher", tokens="cities", to="junk"),
    )
    planted = plant(
        PlantSpec((previous, *copies, every, asked), noise=0.02),
        architecture="llama", n_layers=3, n_heads=4, width=384, d_head=96, vocab=vocabulary, context=256, seed=seed,
    )  # fmt: skip
    return sown(planted, copies, [every, asked, previous])
