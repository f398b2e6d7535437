"""Heads that read a review's mood off the word that sums it up."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._reviews import reviews


@planting("summary-reader")
def summary_reader(seed: int) -> Sown:
    """Two heads read the mood at the summary word; others read it at the adjective, or attend to the summary for nothing."""
    made = reviews(seed)
    return Sown(made.model, made.readers, made.look_alikes | made.summarizers)
