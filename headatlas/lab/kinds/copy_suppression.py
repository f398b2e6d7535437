"""A head that finds a token about to be predicted again in the text, and argues against it."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import match_plain
from headatlas.lab.construct.terms import Match, Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="copy-suppression-head", outcome="suppresses")
def copy_suppression(head: Head, plan: Plan) -> Recipe:
    """Attends to copies of the token that earlier heads predict, and lowers its logit."""
    wanted = "a head that predicts (induction, retrieval, mover or successor)"
    size = plan.amplitude("next", head, wanted)
    terms = match_plain(plan, lambda gain: Match("next", "token", gain / size), head.strength)
    return Recipe(terms, (Write("token", "next", -head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """Copies of the token that an induction head predicts here."""
    return where.same(where.follower(tokens), tokens)
