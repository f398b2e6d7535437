"""Heads that fetch what is known of a subject, whatever is asked of it."""

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.fact_recall import recall
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.tasks.facts import facts


# Two percent of the logit: what the papers on circuits ask of a head that is to count as writing the answer.
@model_detector(
    head_type="subject-head",
    task=facts,
    version=1,
    minimum_effect=0.02,
    needs=("unembedding",),
    verdict_positions="end",
)
def subject(model: Model, batch: Batch) -> Measured:
    """Share of a fact's logit that a head takes from the subject's tokens and from nowhere else: 0 none, 1 all of it.

    Formula: direct effect of the head at the last token on the object's logit through the tokens of the subject, over the
    mean size of that logit; 0 for heads that do not take ten times as much from there as from the relation's tokens
    (Chughtai et al. 2024). Logits are relative to the mean over the objects of all prompts. Chance: the same on an object of
    the relation that belongs to another subject.
    """
    found = recall(model, batch)
    own = found.source == "subject"
    return Measured(*(torch.from_numpy(np.where(own, part, 0.0)) for part in (found.subject, found.other_subject)))
