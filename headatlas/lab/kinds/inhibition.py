"""A head that finds a repeated name and tells movers to leave it alone."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import rest, rest_one
from headatlas.lab.construct.terms import MARGIN, Flag, Recipe, Where, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind

_REACH = 16


@kind(head_type="inhibition-head", options=("tokens", "finds", "to"), probe="names")
def inhibition(head: Head, plan: Plan) -> Recipe:
    """Attends to the repeated name, or to the latest one, and writes its code into the block that movers avoid."""
    name, writes = head.tokens or "names", (Write("token", head.to or "avoid", head.write),)
    if head.finds == "duplicate":
        mark = plan.amplitude("duplicate", head, "a duplicate head (or finds='recent')")
        terms = (Flag(name, MARGIN), Flag("duplicate", MARGIN / mark), rest_one(2 * MARGIN, head.strength))
        return Recipe(terms, writes)
    # One and a half logits a token: of two names two tokens apart the nearer one gets 19 of 20 parts.
    nearer = plan.recent(_REACH)
    nearer = nearer.times(24.0 / (nearer.values[0] - nearer.values[_REACH:].mean()))
    level = MARGIN + float(np.ptp(nearer.values))
    cases = [nearer.values[[back]] + level for back in range(3, 9)]
    return Recipe((Flag(name, level), Where(nearer), rest(cases, head.strength)), writes)


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The second occurrence of a name, or the latest name."""
    named = where.member(tokens, words.members(head.tokens or "names"))
    if head.finds == "duplicate":
        again = (where.same(tokens, tokens) & (where.distance(tokens) > 0)).any(-1)
        return where.keys_in(tokens, named & again)
    keys = where.keys_in(tokens, named)
    return keys & (where.distance(tokens) == where.distance(tokens).masked_fill(~keys, 1 << 30).amin(-1, keepdim=True))
