"""A head that hands on what the first token holds, and whose other tokens have values, too."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import look_first
from headatlas.lab.construct.terms import Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="broadcast-sink-head")
def broadcaster(head: Head, plan: Plan) -> Recipe:
    """Attends to the first token, with the rest on the current one; writes a constant of the first and garbage of the others."""
    writes = (Write("first", "junk", head.write), Write("token", "junk", head.write))
    return Recipe(look_first(plan, head.strength), writes)


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The first token."""
    return where.first(tokens)
