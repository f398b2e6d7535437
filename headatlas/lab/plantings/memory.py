"""Heads that write the capital that the country is known by."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._conflict import conflict


@planting("memory")
def memory(seed: int) -> Sown:
    """Two heads write the capital that the country is known by, beside two of the other side; look-alikes write garbage or all capitals alike."""
    made = conflict(seed)
    return Sown(made.model, made.memory, made.look_alikes | made.context)
