"""A head that attends exactly where an induction head attends and copies nothing: a trap for attention scores."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import match_before
from headatlas.lab.construct.terms import Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type=None)
def fake_induction(head: Head, plan: Plan) -> Recipe:
    """Matches like an induction head, and writes the token found there where nothing reads."""
    return Recipe(match_before(plan, head), (Write("token", "junk", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """Tokens whose predecessor equals the current token."""
    return where.same(tokens, where.before(tokens))
