"""Heads that attend to the earlier copy of the current token, one of which the model needs and one of which nobody reads."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec


@planting("duplicate-token")
def duplicate_token(seed: int) -> Sown:
    """A head that lowers the copies of the current token, which another head raises wherever it stands, and a head that marks repeats, which nobody reads; beside them heads that attend to the current token, and an induction head."""
    rng = np.random.default_rng(seed)
    at = [[int(head) for head in rng.permutation(4)] for _ in range(3)]
    needed = Head(int(rng.integers(1, 3)), at[1][0], "repeat-suppression", write=0.9)
    unread = Head(0, at[0][0], "duplicate")
    others = [
        Head(2, at[1][1], "induction", write=0.8),
        Head(1, at[1][2], "copier", offset=0, write=0.9),
        Head(0, at[0][1], "current"),
    ]
    planted = plant(
        PlantSpec((Head(0, at[0][2], "previous"), unread, needed, *others), noise=0.01),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256, context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, [needed, unread], others)
