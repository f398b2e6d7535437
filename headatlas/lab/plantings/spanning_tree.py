"""Heads whose maps are like dependency trees, and heads whose trees know no words or only one relation."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._trees import trees


@planting("spanning-tree", examples=32)
def spanning_tree(seed: int) -> Sown:
    """Two heads attend from each word back to the nearest of every kind that it depends on, or that depends on it; beside them one that attends a token back everywhere, one that spreads evenly, one from nouns to determiners alone, and heads on the words that open phrases."""
    made = trees(seed)
    return Sown(made.model, made.dependencies, made.wordless | made.part | made.constituents)
