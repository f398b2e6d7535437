"""Heads that raise all labels alike."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._choices import choices


@planting("constant")
def constant(seed: int) -> Sown:
    """A head raises all labels from all labels; others attend to all labels and write garbage, to all options, or to one label."""
    made = choices(seed)
    return Sown(made.model, made.constant, made.others(made.constant))
