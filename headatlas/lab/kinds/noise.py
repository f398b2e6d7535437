"""A head of random weights: it attends a little here and there and writes a little of everything."""

from __future__ import annotations

from torch import Tensor

from headatlas.lab.construct import targets as where
from headatlas.lab.construct.plan import Plan
from headatlas.lab.construct.terms import Recipe
from headatlas.lab.construct.words import Words
from headatlas.lab.head import Head
from headatlas.lab.kind import kind


@kind(head_type=None, options=("spread",))
def noise(head: Head, plan: Plan) -> Recipe:
    """Random attention logits of standard deviation `spread`; writes half of `write` as garbage."""
    return Recipe(random=(head.spread, 0.5 * head.write))


def targets(tokens: Tensor, head: Head, words: Words) -> Tensor:
    """Nowhere in particular."""
    return where.causal(tokens) & False
