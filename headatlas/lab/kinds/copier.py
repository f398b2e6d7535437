"""A head that copies what the tokens carry that it attends to: their own code, or a feature such as their initial."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import look_back, rest_one
from headatlas.lab.construct.terms import MARGIN, Flag, Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type=None, options=("tokens", "offset", "reads", "to"), probe="delimited", outcome="none")
def copier(head: Head, plan: Plan) -> Recipe:
    """Attends to all tokens of a class so far, or without one to the token `offset` back; writes what block `reads` holds there into `to`."""
    terms = (
        look_back(plan, head.offset, head.strength)
        if head.tokens is None
        else (Flag(head.tokens, MARGIN), rest_one(MARGIN, head.strength))
    )
    return Recipe(terms, (Write(head.reads, head.to or "next", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The tokens of the class so far, or the one `offset` back."""
    if head.tokens is None:
        return where.back(tokens, head.offset)
    return where.keys_in(tokens, where.member(tokens, words.members(head.tokens)))
