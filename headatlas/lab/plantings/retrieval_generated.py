"""Heads that copy the answer out of a long text while it is written."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._needle import needle_heads
from headatlas.lab.plantings._sowing import sown


@planting("retrieval-generated")
def retrieval_generated(seed: int) -> Sown:
    """Two heads that attend to the needle's next token while the model writes the answer, one of which writes garbage; beside them one that attends to cities, and one that attends to copies of the current token."""
    one = needle_heads(seed)
    return sown(one.planted, [one.fetching, one.silent], [one.city, one.repeat])
