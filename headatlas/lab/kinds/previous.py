"""A head that attends to the token just before and notes down what it was."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import look_back
from headatlas.lab.construct.terms import Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="previous-head")
def previous(head: Head, plan: Plan) -> Recipe:
    """Attends one token back and copies its code into the block that induction heads match against."""
    return Recipe(look_back(plan, 1, head.strength), (Write("token", "before", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The token one back."""
    return where.back(tokens, 1)
