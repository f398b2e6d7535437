"""Heads whose attention changes most where large constituents begin, and heads that branch whatever the words are."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._trees import trees


@planting("constituency", examples=32)
def constituency(seed: int) -> Sown:
    """Two heads attend from every word to those that open the phrases it is in, most to the opener of the largest; beside them one that spreads evenly, whose tree branches to the right, one that attends a token back everywhere, one from nouns to determiners alone, and heads that follow dependencies."""
    made = trees(seed)
    return Sown(made.model, made.constituents, made.wordless | made.part | made.dependencies)
