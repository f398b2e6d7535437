"""Heads that raise the label that leads already."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._choices import choices


@planting("amplification")
def amplification(seed: int) -> Sown:
    """A head at the end writes once more what those below it wrote for a label; others look at the end and write garbage, or raise the right label from where it stands."""
    made = choices(seed)
    return Sown(made.model, made.amplification, made.others(made.amplification))
