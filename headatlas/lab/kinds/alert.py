"""A head that rests on the first token until words of a class come, and attends to those as long as they are near."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import rest_one
from headatlas.lab.construct.terms import MARGIN, Flag, Recipe, Where, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind

_STEEPNESS = 10.0


@kind(head_type="active-dormant-head", options=("tokens", "width"), probe="delimited")
def alert(head: Head, plan: Plan) -> Recipe:
    """Attends to delimiters (or another class) among the last `width` tokens, rests where there are none, writes garbage."""
    nearby = plan.near(head.width)
    outside = nearby.values[2 * head.width :].max()
    nearby = nearby.times(_STEEPNESS / float(nearby.values[: head.width].mean() - outside))
    lowest = float(nearby.values[: head.width].min())
    terms = (Flag(head.tokens or "delimiters", MARGIN), Where(nearby), rest_one(MARGIN + lowest, head.strength))
    return Recipe(terms, (Write("token", "junk", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The members of the class among the last `width` tokens."""
    near = where.distance(tokens) < head.width
    return near & where.keys_in(tokens, where.member(tokens, words.members(head.tokens or "delimiters")))
