"""Heads that bring the end of a prompt of examples into the subspace of the labels that the examples show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.edits import Zero
from headatlas.methods.attribution.label_subspace import label_subspace, shown_labels
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.model import Model
from headatlas.task import Batch, Metric, logit_lead
from headatlas.tasks.classification import classification


# A hundredth of all that the stream has among the labels, where dozens of heads and MLPs write.
@model_detector(
    head_type="task-recognition-head",
    task=classification,
    version=1,
    minimum_effect=0.01,
    needs=("unembedding",),
)
def task_recognition(model: Model, batch: Batch) -> Measured:
    """How much a head writes, at the end, within the subspace of the labels shown: 0 nothing, 1 as much as the whole stream has there.

    Formula: |P a| / mean |P h|, P the projection onto the span of the labels' unembeddings less the mean of all tokens', a the head's output at the last token, h the
    stream there, the mean over prompts (task subspace logit attribution, TR score; Yang et al. 2025). Chance: the same in prompts of the same words
    whose labels are the names of other kinds, P still that of the first labels: what a head writes there it writes
    whatever labels are shown, such as the words themselves. A hundredth is the least that counts. The verdict asks
    whether the model answers with one of the labels at all. Differs: the paper has no
    chance level, leaves |P a| as it is and takes the top 3% of all heads; its labels are those of SST-2, TREC and the like; unembeddings are not
    centred there, so that what raises all tokens alike counts too; the final norm's gain and scale count here as they do for logits.
    """
    assert batch.counterfactual is not None
    labels = shown_labels(batch)
    clean, other = (label_subspace(model, part, labels) for part in (batch, batch.counterfactual))
    unit = float(np.linalg.norm(clean.stream, axis=-1).mean())
    return Measured(torch.from_numpy(clean.lengths / unit), torch.from_numpy(other.lengths / unit))


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """The heads give nothing at the end, by what the best label loses against all other tokens.

    Not what they give where other labels are shown, which would raise those.
    """
    any_label = replace(batch, labels={**batch.labels, "answer": shown_labels(batch)})
    end = batch.positions["end"].reshape(-1, 1)
    return SetAblation(model, any_label, logit_lead, lambda heads: Zero(heads, positions=end), end)
