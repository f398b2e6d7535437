"""Successor heads, and heads that copy members of series instead."""

from __future__ import annotations

import numpy as np

from headatlas.lab.construct.words import words_of
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.plantings._texts import texts_of
from headatlas.lab.spec import PlantSpec
from headatlas.tasks._prompts import table

# Series that share no member with an earlier one, as far as they go.
_SERIES = ("days", "months", "number-words", "letters", "ordinals", "digits", "short-days", "short-months")


@planting("successor")
def successor(seed: int) -> Sown:
    """A head that reads a member of a series and writes the next one; beside it one that copies members."""
    series = table("succession")["series"]
    known: set[str] = set()
    sequences = []
    for name in _SERIES:
        members = [member for member in series[name]["members"] if member not in known]
        known.update(members)
        sequences.append(tuple(members))
    vocabulary = words_of(texts_of("succession"), sequences=sequences)
    rng = np.random.default_rng(seed)
    a, b, c = (int(head) for head in rng.permutation(4)[:3])
    positive, copying = Head(1, a, "successor", write=2.0), Head(1, b, "mover", tokens="ordinals", write=0.1)
    others = (Head(0, 0, "previous"), Head(0, 1, "duplicate"), Head(2, c, "fake-induction"))
    planted = plant(
        PlantSpec((*others, positive, copying), noise=0.02),
        architecture="llama", n_layers=3, n_heads=4, width=256, vocab=vocabulary, context=128,
        seed=seed,
    )  # fmt: skip
    return sown(planted, [positive], [copying, others[-1]])
