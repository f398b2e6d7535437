"""A head that all languages need, and heads that one needs, or none."""

from __future__ import annotations

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.plantings._tongues import tongues


@planting("language-general", examples=100)
def language_general(seed: int) -> Sown:
    """An induction head; beside it two heads that fetch words of one language alone, and heads that attend like both and write garbage; the previous-token head that all read does not decide."""
    made = tongues(seed)
    return sown(made.planted, [made.shared], [*made.own, *made.idle], [made.before])
