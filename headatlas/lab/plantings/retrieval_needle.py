"""Heads that attend from the question to the needle."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._needle import needle_heads
from headatlas.lab.plantings._sowing import sown


@planting("retrieval-needle")
def retrieval_needle(seed: int) -> Sown:
    """Two heads that attend from the question's end to the answer's first token, one of which writes garbage; beside them one that attends to cities, and one that attends to copies of the current token."""
    one = needle_heads(seed)
    return sown(one.planted, [one.fetching, one.silent], [one.city, one.repeat])
