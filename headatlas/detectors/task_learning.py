"""Heads that turn the end of a prompt of examples, within the subspace of their labels, towards the right one."""

from __future__ import annotations

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.name_movers import chance_at_least_zero
from headatlas.methods.attribution.label_subspace import label_subspace, shown_labels
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch
from headatlas.tasks.classification import classification

NEGLIGIBLE = 0.02  # share of the largest mean length of a head's output below which its direction does not count


@model_detector(
    head_type="task-learning-head",
    task=classification,
    version=1,
    minimum_effect=0.1,
    needs=("unembedding",),
    verdict_positions="end",
)
def task_learning(model: Model, batch: Batch) -> Measured:
    """How far a head's output within the labels' subspace points to the right label: -1 away, 0 to none, 1 to it alone.

    Formula: mean over the wrong labels y' of a . (u_y - u_y'), over |P a| |u_y - mean u_y'|, y the right label, u unembeddings less their mean, a the head's output at the
    last token, P the projection onto the span of all labels' (task subspace logit attribution, TL score; Yang et al. 2025); 0 for heads
    with less than a fiftieth of the largest mean |P a|. Chance: the same, at least 0 on average, where the labels follow no rule: what a head raises there
    it knows, and has not learned it from the examples. A tenth is the least that counts. Differs: the paper has no chance level, no least
    length, and leaves out the length of the difference of labels, so that here 1 is the most; it takes the top 3% of all heads; the
    final norm's gain counts here as it does for logits.
    """
    assert batch.control is not None
    labels = shown_labels(batch)
    clean, loose = (label_subspace(model, part, labels) for part in (batch, batch.control))
    writes = clean.lengths.mean(0) > NEGLIGIBLE * clean.lengths.mean(0).max()

    def cosine(heads: Array) -> Array:
        lengths = np.linalg.norm(heads, axis=-1) * np.linalg.norm(clean.right, axis=-1)[:, None]
        along = np.einsum("ehn,en->eh", heads, clean.right)
        return np.divide(along, lengths, out=np.zeros_like(along), where=lengths > 0) * writes

    return Measured(torch.from_numpy(cosine(clean.heads)), torch.from_numpy(chance_at_least_zero(cosine(loose.heads))))
