"""Heads that find whom a pronoun means, and heads that take the nearest name for it."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._grammar import reading


@planting("coreference", examples=32)
def coreference(seed: int) -> Sown:
    """Two heads attend from "she" to the woman's name and from "he" to the man's; beside them one that attends to the nearest name, one a token back, one to all determiners."""
    made = reading(seed)
    return Sown(made.model, made.coreference, made.nearest_name | made.by_place)
