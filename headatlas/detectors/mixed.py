"""Heads that take part of a fact from its subject and part from what is asked."""

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.fact_recall import recall
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.task import Batch
from headatlas.tasks.facts import facts


# Half of what is asked of subject and relation heads: here it is asked of both sides.
@model_detector(
    head_type="mixed-head", task=facts, version=1, minimum_effect=0.01, needs=("unembedding",), verdict_positions="end"
)
def mixed(model: Model, batch: Batch) -> Measured:
    """Share of a fact's logit that a head takes from subject and relation each, the smaller of the two: 0 none, 1 all of it.

    Formula: direct effect of the head at the last token on the object's logit through the tokens of the subject, and through
    those of the relation, over the mean size of that logit: that of the two which exceeds its chance level by less; 0 where
    one is ten times the other (Chughtai et al. 2024). Chance: that side's of the detectors `subject` and `relation`.
    """
    found = recall(model, batch)
    by_subject = stats.mean(found.subject - found.other_subject) < stats.mean(found.relation - found.other_relation)
    own = found.source == "mixed"
    weaker = np.where(by_subject, found.subject, found.relation)
    chance = np.where(by_subject, found.other_subject, found.other_relation)
    return Measured(*(torch.from_numpy(np.where(own, part, 0.0)) for part in (weaker, chance)))
