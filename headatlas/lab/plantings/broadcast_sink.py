"""Heads that hand one content on from the first token, and heads that rest there for nothing, or write one content without a sink."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec


@planting("broadcast-sink")
def broadcast_sink(seed: int) -> Sown:
    """Two heads that rest on the first token and write its mark at every token; beside them one that rests there where the value is nothing, one that looks five back and finds the same content in every token, one that copies garbage, and noise heads."""
    rng = np.random.default_rng(seed)
    places = [(layer, int(head)) for layer in range(3) for head in range(4)]
    a, b, c, d, e = (places[int(i)] for i in rng.permutation(len(places))[:5])
    handing = [Head(*a, "broadcaster"), Head(*b, "broadcaster", strength=0.8, write=0.5)]
    others = [
        Head(*c, "positional", strength=0.2),
        Head(*d, "copier", strength=0.95, reads="present", to="junk"),
        Head(*e, "window"),
    ]
    planted = plant(
        PlantSpec((*handing, *others), noise=0.002),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256, context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, handing, others, stand_ins=True)
