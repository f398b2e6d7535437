"""A head that sees a member of a sequence (a number, a day, a letter) and predicts the next one."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import rest
from headatlas.lab.construct.terms import MARGIN, Flag, Recipe, Where, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="successor-head", probe="sequences", outcome="advances")
def successor(head: Head, plan: Plan) -> Recipe:
    """Attends to a sequence member here or, less, one token back, and writes the code of the next member."""
    nearby = plan.fading((1.0, 0.7))
    nearby = nearby.times(MARGIN / float(nearby.values[1] - nearby.values[4:].max()))
    terms = (Flag("ordinals", MARGIN), Where(nearby), rest([nearby.values[[0]] + MARGIN], head.strength))
    return Recipe(terms, (Write("token", "next", head.write, forward=True),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The current token where it belongs to a sequence."""
    return where.keys_in(tokens, where.member(tokens, words.ordinals)) & (where.distance(tokens) == 0)
