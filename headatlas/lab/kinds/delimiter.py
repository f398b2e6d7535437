"""A head that attends to punctuation."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import rest_one
from headatlas.lab.construct.terms import MARGIN, Flag, Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="punctuation-head", options=("tokens",), probe="delimited")
def delimiter(head: Head, plan: Plan) -> Recipe:
    """Attends evenly to all earlier delimiters and writes where nothing reads."""
    terms = (Flag(head.tokens or "delimiters", MARGIN), rest_one(MARGIN, head.strength))
    return Recipe(terms, (Write("token", "junk", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The delimiters so far."""
    return where.keys_in(tokens, where.member(tokens, words.members(head.tokens or "delimiters")))
