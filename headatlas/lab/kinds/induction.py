"""A head that searches for what followed the current token last time, and predicts that it follows again."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import match_before
from headatlas.lab.construct.terms import Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="induction-head", options=("to",), outcome="copies")
def induction(head: Head, plan: Plan) -> Recipe:
    """Matches the current token with the note of an earlier previous-token head, and copies the token found there.

    to="duplicate": it raises the flag of repeats instead, the second route to it (Wang et al. 2022).
    """
    value = "present" if head.to == "duplicate" else "token"
    return Recipe(match_before(plan, head), (Write(value, head.to or "next", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """Tokens whose predecessor equals the current token."""
    return where.same(tokens, where.before(tokens))
