"""Heads that gather the mood of a text at a word that means nothing by itself."""

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.sentiment import output_effects
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.tasks.movie_review import movie_review


# One percent of what exchanging the review does: the least that counts as an effect in verdicts too.
@model_detector(
    head_type="sentiment-summarizer", task=movie_review, version=1, minimum_effect=0.01, verdict_positions="summary"
)
def sentiment_summarizer(model: Model, batch: Batch) -> Measured:
    """Share of a review's effect that a head brings to the summary word: 0 none, 1 all of it.

    Formula: fall of the logit difference when the head's output at the summary word ("movie") is that of the opposite
    review, over the mean fall when the whole review is; 0 for heads that give adjective and verb less than a fifth of the
    attention that they spend from there beyond the first token (Tigges et al. 2023, patching at one position). Chance: the same with the output of another review of the
    same wording and mood.
    """
    found = output_effects(model, batch)
    return Measured(torch.from_numpy(found.effect), torch.from_numpy(found.control))
