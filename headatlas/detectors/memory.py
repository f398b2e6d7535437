"""Heads that answer from what the model knows when the text says otherwise."""

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.knowledge_conflict import conflict_effects
from headatlas.methods.sweeps.set_ablation import SetAblation, averaged_at
from headatlas.model import Model
from headatlas.task import Batch, Metric
from headatlas.tasks.conflict import knowledge_conflict


# A twentieth of how far the model usually leans to either side: twenty such heads would decide between the answers.
@model_detector(
    head_type="memory-head", task=knowledge_conflict, version=1, minimum_effect=0.05, needs=("unembedding",)
)
def memory(model: Model, batch: Batch) -> Measured:
    """What a head adds to the remembered answer over the claimed one: 0 nothing, 1 as much as the model usually leans.

    Formula: direct effect at the last token on the logit of the true capital minus that of the one which the text claims, over
    the mean size of this difference (path patching to the logits of Jin et al. 2024, S_m, in logits). Chance: the same for
    both capitals of another prompt.
    """
    found = conflict_effects(model, batch)
    return Measured(-torch.from_numpy(found.claimed), -torch.from_numpy(found.unrelated))


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """Mean ablation at the last token; other prompts about the same country would leave what is remembered in place."""
    return averaged_at(model, batch, metric, batch.positions["end"].reshape(-1, 1))
