"""A head that attends from the later pieces of a word to the piece before, and rests at the start of a word."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import rest
from headatlas.lab.construct.terms import MARGIN, Recipe, Where, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="subword-merge-head", options=("tokens", "to"), probe="delimited")
def merger(head: Head, plan: Plan) -> Recipe:
    """Attends one token back from tokens of the class "pieces" (or another) alone; rotary models only."""
    kernel = plan.only(1)
    others = [value for distance, value in enumerate(kernel.values) if distance != 1]
    kernel = kernel.times(MARGIN / (kernel.values[1] - max(others)))
    terms = (Where(kernel, asking=head.tokens or "pieces"), rest([kernel.values[[1]]], head.strength))
    return Recipe(terms, (Write("token", head.to or "junk", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The token one back, seen from tokens of the class."""
    return where.back(tokens, 1) & where.member(tokens, words.members(head.tokens or "pieces"))[:, :, None]
