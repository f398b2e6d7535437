"""Induction heads that stand in for each other, so that each matters only beside the other."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec


@planting("induction")
def induction(seed: int) -> Sown:
    """Two induction heads each of which makes the model certain of the next token, so that only without both it is lost, and one that writes garbage; beside them heads that attend to earlier copies of the current token and to the current token itself."""
    rng = np.random.default_rng(seed)
    at = [[int(head) for head in rng.permutation(8)] for _ in range(3)]
    pair = [Head(2, at[2][i], "induction", write=3.0) for i in range(2)]
    unread = Head(1, at[1][0], "fake-induction")
    others = [Head(0, at[0][1], "duplicate"), Head(0, at[0][2], "current")]
    planted = plant(
        PlantSpec((Head(0, at[0][0], "previous"), *pair, unread, *others), noise=0.03, rest="noise"),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=8, width=256, context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, [*pair, unread], others)
