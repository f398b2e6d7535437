"""Heads that attend to the passage which holds the answer, whether or not to the token that comes next."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._needle import needle_heads
from headatlas.lab.plantings._sowing import sown


@planting("semantic-retrieval", examples=32)
def semantic_retrieval(seed: int) -> Sown:
    """Two heads that attend to the needle's next token while the answer is written, and one that attends to the token there which was written last; beside them one that attends to cities, and one to the token before."""
    one = needle_heads(seed)
    return sown(one.planted, [one.fetching, one.silent, one.repeat], [one.city, one.previous])
