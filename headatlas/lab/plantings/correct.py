"""Heads that raise the right option's label."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._choices import choices


@planting("correct")
def correct(seed: int) -> Sown:
    """Heads that raise the right label, from that label or from what the end holds already; others raise all labels, one label, or write garbage."""
    made = choices(seed)
    return Sown(
        made.model, made.correct_letter | made.amplification, made.others(made.correct_letter, made.amplification)
    )
