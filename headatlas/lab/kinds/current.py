"""A head that attends to the token it stands on."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import look_back
from headatlas.lab.construct.terms import Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="diagonal-head")
def current(head: Head, plan: Plan) -> Recipe:
    """Attends to its own position and writes where nothing reads."""
    return Recipe(look_back(plan, 0, head.strength), (Write("token", "junk", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The token itself."""
    return where.back(tokens, 0)
