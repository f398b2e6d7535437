"""Heads that gather a review's mood at the word that sums it up."""

from headatlas.lab.planting import Sown, planting
from headatlas.lab.plantings._reviews import reviews


@planting("sentiment-summarizer")
def sentiment_summarizer(seed: int) -> Sown:
    """Two heads write the mood of adjective and verb at the summary word; another attends so and writes garbage."""
    made = reviews(seed)
    return Sown(made.model, made.summarizers, made.look_alikes | made.readers)
