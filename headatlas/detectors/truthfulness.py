"""Heads from whose output one can read whether a statement is true."""

from __future__ import annotations

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.seeds import seed_of
from headatlas.errors import UnfitTask
from headatlas.methods.probing import CrossValidation, labels_of, probe
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.tasks.statements import statements

PROMPTS = 192  # a probe of 64 to 256 numbers learns little from the batch's few dozen
SHUFFLES = 2


@model_detector(head_type="truthfulness-head", task=statements, version=4, minimum_effect=0.1)
def truthfulness(model: Model, batch: Batch) -> Measured:
    """Accuracy of a linear probe for true and false on the head's output: 0.5 guessing, 0 always wrong, 1 always right.

    Formula: balanced accuracy of logistic regression on z at the statement's full stop, in five-fold cross-validation in
    which statements that differ in one word are never parted (Li et al. 2023, ITI, who read the last token); a row per such
    group, weighted so that their mean is the accuracy over statements. Chance: probes trained and tested on shuffled labels.
    Ten points are the least that counts: the best of hundreds of heads on some hundred statements reaches half of that by luck.
    """
    seed = seed_of(batch)
    try:
        read = statements(model.tokenizer, PROMPTS, seed)
    except UnfitTask:  # a tokenizer that splits many of the words: what mining could draw must do
        read = batch
    labels = labels_of(read, "truth", "pair")
    found = probe(
        model, read, labels, position="stop", validation=CrossValidation(shuffles=SHUFFLES, test=0, seed=seed)
    ).scores
    return Measured(torch.from_numpy(found.values), torch.from_numpy(found.control))
