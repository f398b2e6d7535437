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
    places = [(layer, int(head)) for layer in range(3) for head in rng.permutation(4)]
    order = [places[i] for i in rng.permutation(len(places))]
    near = [
        Head(*order[0], "window", width=6),
        Head(*order[1], "positional", offset=1),
        Head(*order[2], "positional", offset=4),
    ]
    far = [
        Head(*order[3], "positional", offset=32),
        Head(*order[4], "positional", offset=40),
        Head(*order[5], "delimiter"),
    ]
    planted = plant(
        PlantSpec((*near, *far), noise=0.02),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256, context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, near, far, stand_ins=True)
