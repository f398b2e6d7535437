"""Heads whose output says whether the answer will be right."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._readers import readers


@planting("accuracy")
def accuracy(seed: int) -> Sown:
    """Two heads at the end write whether the name asked for will be answered right, one of which later heads read; look-alikes write which name it is, or whether the answer will be in the question's language."""
    made = readers(seed)
    return Sown(made.model, made.right, made.own_language | made.silent, made.above)
