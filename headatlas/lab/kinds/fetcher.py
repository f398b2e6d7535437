"""A head that fetches what stands after the current token elsewhere in the text, if that belongs to a class of tokens."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import match_gain, rest_one
from headatlas.lab.construct.terms import MARGIN, Flag, Match, Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="retrieval-head", options=("tokens", "to"), outcome="copies")
def fetcher(head: Head, plan: Plan) -> Recipe:
    """Matches like an induction head, but among names (or another class) alone, and copies the token found there.

    A match and a member of the class are worth as much; the head rests where it does not find both in one place.
    """
    size, gain = plan.amplitude("before", head, "a previous-token head"), match_gain(plan)
    level = gain + MARGIN
    terms = (Match("token", "before", gain / size), Flag(head.tokens or "names", gain), rest_one(level, head.strength))
    return Recipe(terms, (Write("token", head.to or "next", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """Members of the class whose predecessor equals the current token."""
    found = where.same(tokens, where.before(tokens))
    return found & where.member(tokens, words.members(head.tokens or "names"))[:, None, :]
