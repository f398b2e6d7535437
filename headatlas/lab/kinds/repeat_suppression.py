"""A head that attends to earlier copies of the current token and argues against saying it again."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import match_apart
from headatlas.lab.construct.terms import NEARBY, Match, Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="copy-suppression-head", probe="lags", outcome="suppresses")
def repeat_suppression(head: Head, plan: Plan) -> Recipe:
    """Attends to earlier equal tokens, not to itself, and lowers their logit."""
    terms = match_apart(plan, lambda gain: Match("token", "token", gain), 1, NEARBY, head.strength)
    return Recipe(terms, (Write("token", "next", -head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """Earlier equal tokens."""
    return where.same(tokens, tokens) & (where.distance(tokens) > 0)
