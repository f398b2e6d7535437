"""Heads from whose output one can read whether the model is about to answer in the language of the question."""

from __future__ import annotations

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.own_answers import by_preference
from headatlas.methods.sweeps.set_ablation import SetAblation, averaged_at
from headatlas.model import Model
from headatlas.task import Batch, Metric
from headatlas.tasks.cross_lingual import answer_language


@model_detector(
    head_type="coherence-head",
    task=answer_language,
    version=2,
    minimum_effect=0.1,
    paired=False,
)
def coherence(model: Model, batch: Batch) -> Measured:
    """Accuracy of a linear probe for answers in the question's language on the head's output: 0.5 guessing, 0 always wrong, 1 always right.

    Formula: balanced accuracy of logistic regression on z at the end of 192 questions about a note in another language, for whether
    the number that the model prefers there is in the question's language or in the note's, in five-fold cross-validation that keeps all
    questions about one person together (Guo et al. 2024, ASMR: heads by probes for the language of answers). Chance: probes of labels that were
    shuffled among prompts of the same two languages: a head that knows nothing but which languages these are is no coherence head. NaN where
    the model answers fewer than 20 in either. Differs: the paper reads answers that are written out and detects their language.
    """
    return by_preference(model, batch, answer_language)


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """Heads give at the end what they give there on average: what they tell about one question is gone."""
    return averaged_at(model, batch, metric, batch.positions["end"].reshape(-1, 1))
