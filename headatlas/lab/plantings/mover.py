"""Heads that bring what is known of a subject to the end."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._facts import facts


@planting("mover")
def mover(seed: int) -> Sown:
    """Heads that attend to the subject and raise its answers, some of which read the question too; others read the question alone, raise all answers, or write garbage."""
    made = facts(seed)
    return Sown(made.model, made.subject | made.mixed, made.look_alikes | made.relation)
