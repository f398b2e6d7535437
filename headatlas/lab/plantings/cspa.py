"""Heads of which copy suppression is all that they do to predictions, and heads that lower repeats."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings.copy_suppression import copy_suppression


@planting("cspa")
def cspa(seed: int) -> Sown:
    """The models of the planting `copy-suppression`: one head lowers what an induction head predicts; look-alikes lower copies of the current token, or write garbage."""
    return copy_suppression.make(seed)
