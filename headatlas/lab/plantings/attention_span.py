"""Heads that see a few tokens back, and heads that see as little, but far away."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec


@planting("attention-span")
def attention_span(seed: int) -> Sown:
    """A window of 6 tokens and heads 1 and 4 back; beside them heads 32 and 40 back, and one on all punctuation so far."""
    rng = np.random.default_rng(seed)
    order = [divmod(int(place), 4) for place in rng.permutation(12)]  # layer and head
    window, previous, fourth, far, further, marks = order[:6]
    near = [
        Head(*window, "window", width=6),
        Head(*previous, "positional", offset=1),
        Head(*fourth, "positional", offset=4),
    ]
    others = [Head(*far, "positional", offset=32), Head(*further, "positional", offset=40), Head(*marks, "delimiter")]
    planted = plant(
        PlantSpec((*near, *others), noise=0.02),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256, context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, near, others, stand_ins=True)
