"""Heads that write all answers to what is asked."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._facts import facts


@planting("relation")
def relation(seed: int) -> Sown:
    """Two heads read off the end which relation was named, and raise all its answers, beside heads of the subject and of both."""
    made = facts(seed)
    return Sown(made.model, made.relation, made.look_alikes | made.subject | made.mixed)
