"""Heads that fetch the answer out of a long text, planted among heads that look elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headatlas.lab.construct.words import words_of
from headatlas.lab.head import Head
from headatlas.lab.planted import PlantedModel, plant
from headatlas.lab.plantings._texts import texts_of
from headatlas.lab.spec import PlantSpec
from headatlas.tasks._prompts import table


class NeedleHeads(NamedTuple):
    """fetching: copies what followed the current token in the needle. silent: attends there and writes garbage. city, repeat:
    attend to the cities, and to earlier copies of the current token. previous: attends to the token before.
    """

    planted: PlantedModel
    fetching: Head
    silent: Head
    city: Head
    repeat: Head
    previous: Head


def needle_heads(seed: int) -> NeedleHeads:
    """The heads in a model of three layers of four heads that reads 256 tokens, at places drawn by the seed."""
    data = table("needle")
    answers = [word for kind in ("words", "meals") for half in data[kind].values() for word in half]
    cities = [city for half in data["cities"].values() for city in half]
    vocabulary = words_of(texts_of("needle"), classes={"answers": [*answers, *"0123456789"], "cities": cities})
    rng = np.random.default_rng(seed)
    at = [[int(head) for head in rng.permutation(4)] for _ in range(3)]
    first, second = ((1, 2), (2, 1))[seed % 2]
    heads = (
        Head(first, at[first][0], "fetcher", tokens="answers"),
        Head(second, at[second][0], "fetcher", tokens="answers", to="junk"),
        Head(1, at[1][1], "copier", tokens="cities", to="junk"),
        Head(2, at[2][1], "duplicate"),
    )
    previous = Head(0, at[0][0], "previous")
    planted = plant(
        PlantSpec((previous, *heads), noise=0.02),
        architecture="llama", n_layers=3, n_heads=4, width=384, d_head=96, vocab=vocabulary, context=256, seed=seed,
    )  # fmt: skip
    return NeedleHeads(planted, *heads, previous)
