"""Heads that work in some registers and rest in others, and heads that rest or work in all."""

from __future__ import annotations

import numpy as np

from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._reading import vocabulary_of_registers
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec


@planting("active-dormant", examples=128)
def active_dormant(seed: int) -> Sown:
    """Two heads that rest on the first token until words come that only half of the registers use; beside them one that always rests, one that never does, one that wakes for punctuation, which all registers have."""
    rng = np.random.default_rng(seed)
    places = [(layer, int(head)) for layer in range(3) for head in range(4)]
    a, b, c, d, e = (places[int(i)] for i in rng.permutation(len(places))[:5])
    waking = [
        Head(*a, "alert", tokens="busy", width=20, strength=0.95),
        Head(*b, "alert", tokens="busy", width=24, strength=0.95, write=0.5),
    ]
    others = [Head(*c, "sink"), Head(*d, "window"), Head(*e, "alert", width=16, strength=0.9)]
    planted = plant(
        PlantSpec((*waking, *others), noise=0.02),
        architecture=("gpt2", "llama")[seed % 2], n_layers=3, n_heads=4, width=256, vocab=vocabulary_of_registers(),
        context=160, seed=seed,
    )  # fmt: skip
    return sown(planted, waking, others)
