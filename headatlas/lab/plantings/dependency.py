"""Heads that follow a relation of syntax, and heads that find its words by place."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._grammar import reading


@planting("dependency", examples=32)
def dependency(seed: int) -> Sown:
    """Two heads attend from a noun to its determiner and one to the verb whose object it is; beside them one that attends a token back everywhere, one to all determiners, and heads that find the antecedent of pronouns."""
    made = reading(seed)
    return Sown(made.model, made.dependency, made.by_place | made.coreference | made.nearest_name)
