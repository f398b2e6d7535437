"""Heads that write nothing, wherever they attend, and heads that rest on the first token and write."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec


@planting("inactive")
def inactive(seed: int) -> Sown:
    """A head that rests on the first token and one that sees a window, both with next to no write; beside them one of each that writes, and noise heads that do."""
    rng = np.random.default_rng(seed)
    places = [(layer, int(head)) for layer in range(3) for head in range(4)]
    a, b, c, d, *rest = (places[int(i)] for i in rng.permutation(len(places)))
    silent = [Head(*a, "sink", write=0.02), Head(*b, "window", write=0.02)]
    others = [Head(*c, "sink"), Head(*d, "window")]
    planted = plant(
        PlantSpec((*silent, *others, *(Head(*place, "noise", write=2.0) for place in rest)), noise=0.002),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256, context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, silent, others, stand_ins=True)
