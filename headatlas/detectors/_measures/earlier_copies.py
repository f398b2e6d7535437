"""Imagined heads that attend to an earlier copy of a token."""

from __future__ import annotations

from torch import Tensor

from headatlas.ops.patterns import aimed
from headatlas.task import Batch


def last_copy(batch: Batch, keys: str) -> Tensor:
    """A pattern [example, query, key] in which each query attends to the nearest of its keys alone."""
    queries, places = batch.positions["query"], batch.positions[keys]
    nearest = (queries - places) <= batch.facts["period"]
    length = batch.tokens.shape[1]
    return aimed((len(batch), length, length), queries.masked_fill(~nearest, -1), places)
