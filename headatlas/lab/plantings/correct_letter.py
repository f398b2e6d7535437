"""Heads that attend to the right option's label and write it as the answer."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._choices import choices


@planting("correct-letter")
def correct_letter(seed: int) -> Sown:
    """Two heads attend to the right option's label and write it; look-alikes write garbage or every label, attend to all labels or to one."""
    made = choices(seed)
    return Sown(made.model, made.correct_letter, made.others(made.correct_letter))
