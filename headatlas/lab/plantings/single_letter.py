"""Heads that prefer one label."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._choices import choices


@planting("single-letter")
def single_letter(seed: int) -> Sown:
    """A head attends to the third label of every set and raises it; others attend to it and write garbage, or to the right label, or to all."""
    made = choices(seed)
    return Sown(made.model, made.single_letter, made.others(made.single_letter))
