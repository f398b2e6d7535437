"""Heads of an encoder on question marks, and heads on other marks."""

from __future__ import annotations

import torch

from headatlas.heads import HeadId
from headatlas.lab.construct.words import words
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._encoder import encoder

HEADS = 6


@planting("interrogation")
def interrogation(seed: int) -> Sown:
    """Two heads attend to question marks, one of them with less of its mass; beside them one on full stops, and one on the marks behind sentences of both kinds."""
    known = words(256)
    stop, mark = (known.tokens.index(one) for one in ".?")
    order = torch.randperm(HEADS, generator=torch.Generator().manual_seed(seed)).tolist()
    strong, weak, stops, both = order[:4]
    model = encoder(
        known, {strong: [mark], weak: [mark], stops: [stop], both: [stop, mark]}, {},
        {strong: 10.0, weak: 5.0, stops: 10.0, both: 10.0}, heads=HEADS, seed=seed,
    )  # fmt: skip
    at = lambda *heads: frozenset(HeadId(0, head, "encoder") for head in heads)  # noqa: E731
    return Sown(model, at(strong, weak), at(stops, both))
