"""Heads whose output says in which language the answer will be."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._readers import readers


@planting("coherence")
def coherence(seed: int) -> Sown:
    """A head at the end writes whether the answer will be in the question's language or the note's, which a later head reads; look-alikes write which name was asked for, or whether the answer will be right."""
    made = readers(seed)
    return Sown(made.model, made.own_language, made.right | made.silent, made.above)
