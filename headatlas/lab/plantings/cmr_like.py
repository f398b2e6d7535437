"""Heads whose attention by lag has a peak where recall has one, and heads that keep a distance whatever stands there."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec

BACK = 49  # with lists of 50 words: always on the item behind the earlier copy


@planting("cmr-like")
def cmr_like(seed: int) -> Sown:
    """An induction head (lag +1) and a duplicate head (lag 0), both of them curves of CMR; beside them a head that attends 49 tokens back wherever it is, one to the current token, and one to a window."""
    rng = np.random.default_rng(seed)
    at = [[int(head) for head in rng.permutation(4)] for _ in range(2)]
    found = [Head(1, at[1][0], "induction", write=0.8), Head(0, at[0][0], "duplicate")]
    others = [
        Head(1, at[1][1], "positional", offset=BACK),
        Head(0, at[0][1], "current"),
        Head(1, at[1][2], "window"),
    ]
    planted = plant(
        PlantSpec((Head(0, at[0][2], "previous"), *found, *others), noise=0.01),
        architecture=("gpt2", "llama")[seed % 2], n_layers=2, n_heads=4, width=256, context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, found, others)
