"""Heads that look back from labels, and heads that look back from other words or from all."""

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
from headatlas.tasks.foo_bar import LABELS


@planting("forerunner", examples=32)
def forerunner(seed: int) -> Sown:
    """Two heads that attend one token back from labels alone; look-alikes do so from adjectives, or from everywhere, or attend to colons."""
    adjectives = [
        word for kind in table("movie_review")["adjectives"].values() for half in kind.values() for word in half
    ]
    classes = {"labels": list(LABELS), "adjectives": adjectives, "colons": [":"]}
    vocabulary = words_of(texts_of("foo_bar"), classes=classes, more=[*LABELS, *adjectives])
    rng = np.random.default_rng(seed)
    at = [[int(head) for head in rng.permutation(4)] for _ in range(3)]
    positives = (Head(1, at[1][0], "merger", tokens="labels"), Head(2, at[2][0], "merger", tokens="labels"))
    look_alikes = (
        Head(0, at[0][0], "previous"),
        Head(1, at[1][1], "merger", tokens="adjectives"),
        Head(2, at[2][1], "copier", tokens="colons", to="junk"),
    )
    planted = plant(
        PlantSpec((*positives, *look_alikes), noise=0.02),
        architecture="llama", n_layers=3, n_heads=4, width=384, d_head=96, vocab=vocabulary, context=256, seed=seed,
    )  # fmt: skip
    return sown(planted, positives, look_alikes)
