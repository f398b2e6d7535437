"""Heads that repeat the words of one language, and heads that serve all languages or none."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.plantings._tongues import tongues


@planting("language-specific", examples=100)
def language_specific(seed: int) -> Sown:
    """Two heads that fetch what followed the current word before, if it is of one language; beside them an induction head, which serves all languages, and heads that attend like both and write garbage; the previous-token head that all read does not decide."""
    made = tongues(seed)
    return sown(made.planted, made.own, [made.shared, *made.idle], [made.before])
