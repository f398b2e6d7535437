"""Heads that read at the end of a prompt which place of a line its rule repeats, and heads that look there for something else."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._rules import rules


@planting("symbolic-induction", examples=32)
def symbolic_induction(seed: int) -> Sown:
    """The head that averages the marks of all lines' last words; look-alikes attend there and write garbage, or these words; another fetches the answer."""
    made = rules(seed)
    return Sown(made.model, frozenset({made.induction}), made.like_induction | {made.retrieval})
