"""A head that names whom the movers name, but only where they have not done so."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import rest_one
from headatlas.lab.construct.terms import MARGIN, Flag, Match, Recipe, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type="backup-name-mover-head", options=("tokens",), probe="names", outcome="copies")
def backup_mover(head: Head, plan: Plan) -> Recipe:
    """Attends to the names that nobody told it to avoid and that no earlier head predicts, and copies them."""
    name, level = head.tokens or "names", 1.5 * MARGIN
    avoided = plan.amplitude("avoid", head, "an inhibition head")
    predicted = plan.amplitude("next", head, "a head that predicts tokens")
    terms = (
        Flag(name, level),
        Match("avoid", "token", -2 * MARGIN / avoided),
        Match("next", "token", -2 * MARGIN / predicted),
        rest_one(level, head.strength),
    )
    return Recipe(terms, (Write("token", "next", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The tokens of the class, where nothing else names them."""
    return where.keys_in(tokens, where.member(tokens, words.members(head.tokens or "names")))
