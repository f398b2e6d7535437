"""The circuit that names the indirect object, planted among heads that only look like its parts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headatlas.lab.construct.words import words_of
from headatlas.lab.head import Head
from headatlas.lab.planted import PlantedModel, plant
from headatlas.lab.plantings._texts import texts_of
from headatlas.lab.spec import PlantSpec
from headatlas.tasks._prompts import table


class NamesCircuit(NamedTuple):
    """Heads that do the task of indirect objects, and their look-alikes.

    inhibition reads the second S and tells the movers to avoid it; deaf: attends there too and tells nobody. mover: names
    whom it is not told to avoid; early: names all people alike, below the inhibition; silent: attends like a mover and writes
    garbage. negative: lowers the name that is predicted. backup: names the person once the mover is gone.
    """

    planted: PlantedModel
    inhibition: Head
    deaf: Head
    mover: Head
    early: Head
    silent: Head
    negative: Head
    backup: Head


def names_circuit(seed: int) -> NamesCircuit:
    """The circuit in a model of five layers of six heads, its heads at places drawn by the seed."""
    data = table("ioi")
    names = [name for half in data["names"].values() for name in half]
    rng = np.random.default_rng(seed)
    at = [[int(head) for head in rng.permutation(6)] for _ in range(5)]
    circuit = (
        Head(1, at[1][0], "inhibition"),
        Head(1, at[1][1], "inhibition", to="junk"),
        Head(2, at[2][0], "mover"),
        Head(1, at[1][2], "mover", write=0.3),
        Head(3, at[3][0], "mover", to="junk"),
        Head(3, at[3][1], "copy-suppression", write=0.3),
        Head(4, at[4][0], "backup-mover"),
    )
    planted = plant(
        PlantSpec((Head(0, at[0][0], "duplicate"), *circuit), noise=0.02),
        architecture="llama", n_layers=5, n_heads=6, width=384, d_head=64,
        vocab=words_of(texts_of("ioi"), classes={"names": names}), context=128, seed=seed,
    )  # fmt: skip
    return NamesCircuit(planted, *circuit)
