"""Heads that look from a question to the text about what it asks for, beside heads that look to texts whatever is asked."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._documents import asked_documents


@planting("query-retrieval", examples=32)
def query_retrieval(seed: int) -> Sown:
    """Two heads that attend to copies of what is asked; beside them heads for every city, for the first text, the last, and the token before."""
    return asked_documents(seed)
