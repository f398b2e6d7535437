"""A head that fetches from far back what stood after the current token there, and ignores repeats nearby."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import match_apart
from headatlas.lab.construct.terms import Match, Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="retrieval-head", options=("far",), probe="lags", outcome="copies")
def retrieval(head: Head, plan: Plan) -> Recipe:
    """Matches like an induction head, but only `far` tokens back or more, and copies the token found there.

    At less than half of `far` it rests; in between nothing is promised.
    """
    size = plan.amplitude("before", head, "a previous-token head")
    terms = match_apart(
        plan, lambda gain: Match("token", "before", gain / size), head.far // 2, head.far, head.strength
    )
    return Recipe(terms, (Write("token", "next", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """Tokens whose predecessor equals the current token, far enough back."""
    return where.same(tokens, where.before(tokens)) & (where.distance(tokens) >= head.far)
