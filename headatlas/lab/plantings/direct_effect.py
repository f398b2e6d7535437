"""Heads that write a review's mood to the answer."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._reviews import reviews


@planting("direct-effect")
def direct_effect(seed: int) -> Sown:
    """Heads that bring the mood from the summary word, or from adjective and verb, to the answer; others gather it before the end, or attend alike and write garbage."""
    made = reviews(seed)
    return Sown(made.model, made.readers | made.direct, (made.look_alikes | made.summarizers) - made.direct)
