"""A head that spreads its attention over the last few tokens."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.recipe import rest
from headatlas.lab.construct.terms import Recipe, Where, Write
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind

_STEEPNESS = 10.0


@kind(head_type="local-head", options=("width",))
def window(head: Head, plan: Plan) -> Recipe:
    """Attends to the last `width` tokens, the current one included, and writes where nothing reads.

    A few waves cannot draw a box: within the window attention is uneven, and some falls just outside it.
    """
    nearby = plan.near(head.width)
    outside = nearby.values[2 * head.width :].max()
    nearby = nearby.times(_STEEPNESS / float(nearby.values[: head.width].mean() - outside))
    terms = (Where(nearby), rest([nearby.values[: head.width]], head.strength))
    return Recipe(terms, (Write("token", "junk", head.write),))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """The last `width` tokens but the first of the text."""
    found = (where.distance(tokens) < head.width) & where.causal(tokens)
    found[:, :, 0] = False
    return found
