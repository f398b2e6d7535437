"""Heads that mark at a line's last word which place it repeats, and heads that look there for something else."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._rules import rules


@planting("symbol-abstraction", examples=32)
def symbol_abstraction(seed: int) -> Sown:
    """The head that looks from a word to its earlier copy in the line and writes the copy's place; look-alikes look there and write garbage, or the word."""
    made = rules(seed)
    return Sown(made.model, frozenset({made.abstraction}), made.like_abstraction)
