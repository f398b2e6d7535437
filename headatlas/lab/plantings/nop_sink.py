"""Heads that rest on a first token of no value, and sinks that write, do nothing at all, or only rest now and then."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec


@planting("nop-sink")
def nop_sink(seed: int) -> Sown:
    """Two heads that leave four fifths or more of their attention on the first token, whose value is nothing, and with the rest copy garbage; beside them a sink whose first token has a value, one whose values are all zero, one that copies garbage without resting, and noise heads."""
    rng = np.random.default_rng(seed)
    places = [(layer, int(head)) for layer in range(3) for head in range(4)]
    a, b, c, d, e = (places[int(i)] for i in rng.permutation(len(places))[:5])
    resting = [Head(*a, "positional", strength=0.2), Head(*b, "window", strength=0.2, write=0.5)]
    others = [Head(*c, "sink"), Head(*d, "dormant"), Head(*e, "window")]
    planted = plant(
        PlantSpec((*resting, *others), noise=0.002),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256, context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, resting, others, stand_ins=True)
