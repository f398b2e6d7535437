"""Heads that write the capital that the text claims."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._conflict import conflict


@planting("context")
def context(seed: int) -> Sown:
    """Two heads write the capital that the text claims, beside two of the other side; look-alikes write garbage or all capitals alike."""
    made = conflict(seed)
    return Sown(made.model, made.context, made.look_alikes | made.memory)
