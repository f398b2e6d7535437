"""Heads from whose output one can read whether the model is about to answer right."""

from __future__ import annotations

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.own_answers import by_preference
from headatlas.methods.sweeps.set_ablation import SetAblation, averaged_at
from headatlas.model import Model
from headatlas.task import Batch, Metric
from headatlas.tasks.cross_lingual import cross_lingual


@model_detector(
    head_type="accuracy-head",
    task=cross_lingual,
    version=2,
    minimum_effect=0.1,
    paired=False,
)
def accuracy(model: Model, batch: Batch) -> Measured:
    """Accuracy of a linear probe for right and wrong answers on the head's output: 0.5 guessing, 0 always wrong, 1 always right.

    Formula: balanced accuracy of logistic regression on z at the end of 192 questions about a note in another language, for whether
    the word that the model prefers there is of the right number, in whichever of the two languages, in five-fold cross-validation
    that keeps all questions about one person together (Guo et al. 2024, ASMR: heads by probes for right answers). Chance: probes of labels that were
    shuffled among prompts of the same two languages: it is no accuracy head that knows which languages are harder. NaN where the
    model gets fewer than 20 right, or wrong. Differs: the paper reads answers that are written out, of passages that were searched for.
    """
    return by_preference(model, batch, cross_lingual)


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """Heads give at the end what they give there on average: what they tell about one question is gone."""
    return averaged_at(model, batch, metric, batch.positions["end"].reshape(-1, 1))
