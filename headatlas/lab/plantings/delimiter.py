"""Heads of an encoder on its special tokens, and heads on what stands beside them."""

from __future__ import annotations

import torch

from headatlas.heads import HeadId
from headatlas.lab.construct.words import words
from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._encoder import LENGTH, encoder

HEADS = 6


@planting("delimiter")
def delimiter(seed: int) -> Sown:
    """Two heads attend to the special tokens at both ends, one of them with less of its mass; beside them one on punctuation, and one on the first and the last token of the text itself."""
    known = words(256)
    order = torch.randperm(HEADS, generator=torch.Generator().manual_seed(seed)).tolist()
    strong, weak, marks, beside = order[:4]
    special = (known.bos,)
    model = encoder(
        known, {strong: special, weak: special, marks: known.delimiters}, {beside: (1, LENGTH - 2)},
        {strong: 10.0, weak: 2.0, marks: 10.0, beside: 10.0}, heads=HEADS, seed=seed,
    )  # fmt: skip
    at = lambda *heads: frozenset(HeadId(0, head, "encoder") for head in heads)  # noqa: E731
    return Sown(model, at(strong, weak), at(marks, beside))
