"""A head that attends to the names in a text and predicts them."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import rest_one
from headatlas.lab.construct.terms import MARGIN, Flag, Match, Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="name-mover-head", options=("tokens", "to"), probe="names", outcome="copies")
def mover(head: Head, plan: Plan) -> Recipe:
    """Attends to all names (or another class), except those that an inhibition head told it to avoid, and copies them.

    The class is worth more than MARGIN, since the code to avoid overlaps a little with other names' codes.
    """
    level = 1.5 * MARGIN
    terms: tuple[Flag | Match, ...] = (Flag(head.tokens or "names", level), rest_one(level, head.strength))
    if plan.written("avoid", head):
        size = plan.amplitude("avoid", head, "an inhibition head")
        terms = (*terms, Match("avoid", "token", -MARGIN / size))
    return Recipe(terms, (Write("token", head.to or "next", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The tokens of the class."""
    return where.keys_in(tokens, where.member(tokens, words.members(head.tokens or "names")))
