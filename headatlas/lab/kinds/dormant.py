"""A head that attends to the first token and does nothing at all."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import look_first
from headatlas.lab.construct.terms import Recipe
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="active-dormant-head")
def dormant(head: Head, plan: Plan) -> Recipe:
    """Attends to the first token, with the rest on the current one, and writes nothing."""
    return Recipe(look_first(plan, head.strength))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The first token."""
    return where.first(tokens)
