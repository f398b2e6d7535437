"""Heads that write what is known of a subject."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._facts import facts


@planting("subject")
def subject(seed: int) -> Sown:
    """Two heads read the subject's answers at the subject, beside heads of the relation and of both."""
    made = facts(seed)
    return Sown(made.model, made.subject, made.look_alikes | made.relation | made.mixed)
