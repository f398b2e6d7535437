"""Heads that attend to rare words, and heads that attend to common ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headatlas.lab.construct.words import words
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec

VOCABULARY = 768


@planting("rare-words")
def rare_words(seed: int) -> Sown:
    """Two heads that attend to the last tenth of the vocabulary; beside them one that attends to its first half, one to punctuation, one to the first token."""
    known = words(VOCABULARY)
    classes = {"rare": tuple(range(VOCABULARY * 9 // 10, VOCABULARY)), "common": tuple(range(12, VOCABULARY // 2))}
    rng = np.random.default_rng(seed)
    places = [(layer, int(head)) for layer in range(3) for head in range(4)]
    a, b, c, d, e = (places[int(i)] for i in rng.permutation(len(places))[:5])
    rare = [Head(*a, "copier", tokens="rare", to="junk"), Head(*b, "copier", tokens="rare", strength=0.7, write=0.3)]
    others = [Head(*c, "copier", tokens="common", to="junk"), Head(*d, "delimiter"), Head(*e, "sink")]
    planted = plant(
        PlantSpec((*rare, *others), noise=0.02),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256,
        vocab=replace(known, classes=classes), context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, rare, others, stand_ins=True)
