"""Heads that take an answer from subject and relation."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._facts import facts


@planting("mixed")
def mixed(seed: int) -> Sown:
    """One head reads the subject's answers and the relation's, beside heads of either alone."""
    made = facts(seed)
    return Sown(made.model, made.mixed, made.look_alikes | made.subject | made.relation)
