"""Copy-suppression heads, and heads that lower repeats without asking what is predicted."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec


@planting("copy-suppression")
def copy_suppression(seed: int) -> Sown:
    """A head that looks for the token that an induction head predicts and lowers it; beside it one that lowers copies of the current token, one that attends like an induction head and writes garbage, and the induction head."""
    rng = np.random.default_rng(seed)
    at = [[int(head) for head in rng.permutation(4)] for _ in range(4)]
    suppressing = Head(3, at[3][0], "copy-suppression", write=0.5)
    others = [
        Head(1, at[1][0], "induction"),
        Head(2, at[2][0], "repeat-suppression"),
        Head(2, at[2][1], "fake-induction"),
    ]
    planted = plant(
        PlantSpec((Head(0, at[0][0], "previous"), *others, suppressing), noise=0.02),
        architecture=("gpt2", "llama")[seed % 2], n_layers=4, n_heads=4, width=256, context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, [suppressing], others, stand_ins=True)
