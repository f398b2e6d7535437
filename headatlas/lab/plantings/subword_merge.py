"""Heads that join the pieces of a word, and heads that look one token back whatever stands there."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._reading import vocabulary_of_pieces
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec


@planting("subword-merge")
def subword_merge(seed: int) -> Sown:
    """Two heads that attend one piece back from the later pieces of a word alone; beside them one that attends one token back everywhere, one that attends to all pieces so far, one that spreads over the last tokens."""
    rng = np.random.default_rng(seed)
    places = [(layer, int(head)) for layer in range(3) for head in range(4)]
    a, b, c, d, e = (places[int(i)] for i in rng.permutation(len(places))[:5])
    merging = [Head(*a, "merger"), Head(*b, "merger", strength=0.6)]
    others = [Head(*c, "positional", offset=1), Head(*d, "copier", tokens="pieces", to="junk"), Head(*e, "window")]
    planted = plant(
        PlantSpec((*merging, *others), noise=0.02),
        architecture="llama", n_layers=3, n_heads=4, width=256, d_head=64, vocab=vocabulary_of_pieces(), context=160,
        seed=seed,
    )  # fmt: skip
    return sown(planted, merging, others)
