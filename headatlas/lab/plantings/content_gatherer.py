"""Heads that bring the right option's text to the end."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._choices import choices


@planting("content-gatherer")
def content_gatherer(seed: int) -> Sown:
    """Two heads attend from the end to the right option, one of which reads its number; others attend to all options, to labels or to the end."""
    made = choices(seed)
    return Sown(made.model, made.content_gatherer, made.others(made.content_gatherer))
