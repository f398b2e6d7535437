"""A head that attends to earlier copies of the current token and marks it as a repeat."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import match_apart
from headatlas.lab.construct.terms import NEARBY, Match, Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="duplicate-head", probe="lags")
def duplicate(head: Head, plan: Plan) -> Recipe:
    """Attends to earlier equal tokens, not to itself, and raises the flag "duplicate" where it finds one."""
    terms = match_apart(plan, lambda gain: Match("token", "token", gain), 1, NEARBY, head.strength)
    return Recipe(terms, (Write("present", "duplicate", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """Earlier equal tokens."""
    return where.same(tokens, tokens) & (where.distance(tokens) > 0)
