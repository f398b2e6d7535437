"""A head that attends a fixed number of tokens back, whatever stands there."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import look_back
from headatlas.lab.construct.terms import Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="positional-head", options=("offset",))
def positional(head: Head, plan: Plan) -> Recipe:
    """Attends `offset` tokens back and writes where nothing reads."""
    return Recipe(look_back(plan, head.offset, head.strength), (Write("token", "junk", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The token `offset` back."""
    return where.back(tokens, head.offset)
