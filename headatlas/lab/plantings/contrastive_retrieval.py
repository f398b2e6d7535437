"""Heads that give most to the text that answers, beside heads that give to all texts, to the first or to the last."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._documents import asked_documents


@planting("contrastive-retrieval", examples=64)
def contrastive_retrieval(seed: int) -> Sown:
    """Two heads that attend to copies of what is asked; beside them heads for every city, for the first text, the last, and the token before."""
    return asked_documents(seed)
