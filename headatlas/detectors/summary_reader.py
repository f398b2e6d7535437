"""Heads that read the mood of a text off the word that sums it up."""

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.sentiment import value_effects, values_resampled
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.model import Model
from headatlas.task import Batch, Metric
from headatlas.tasks.movie_review import movie_review


# One percent of what exchanging the review does: the least that counts as an effect in verdicts too.
@model_detector(head_type="summary-reader", task=movie_review, version=1, minimum_effect=0.01)
def summary_reader(model: Model, batch: Batch) -> Measured:
    """Share of a review's effect that a head takes from the summary word to the last token: 0 none, 1 all of it.

    Formula: fall of the logit difference when the head finds at the summary word ("movie") the values that stand there in
    the opposite review, z + A[end, summary] (v' - v), over the mean fall when the whole review is exchanged; 0 for
    heads that give it less than a fifth of the attention that they spend beyond the first token (Tigges et al. 2023, path
    patching of values at one position). Chance: the same with the values of another review of the same wording
    and mood.
    """
    found = value_effects(model, batch)
    return Measured(torch.from_numpy(found.effect), torch.from_numpy(found.control))


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """The heads read at the summary word the values of the opposite review, and all other values as they are."""
    return values_resampled(model, batch, metric)
