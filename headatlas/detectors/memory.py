"""Heads that answer from what the model knows when the text says otherwise."""

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.knowledge_conflict import conflict_effects
from headatlas.detectors._measures.name_movers import chance_at_least_zero
from headatlas.methods.sweeps.set_ablation import SetAblation, averaged_at
from headatlas.model import Model
from headatlas.task import Batch, Metric
from headatlas.tasks.conflict import knowledge_conflict


# A twentieth of how far the model usually leans to either side: twenty such heads would decide between the answers.
@model_detector(
    head_type="memory-head", task=knowledge_conflict, version=2, minimum_effect=0.05, needs=("unembedding",)
)
def memory(model: Model, batch: Batch) -> Measured:
    """What a head adds to the remembered answer over the claimed one: 0 nothing, 1 as much as the model usually leans.

    Formula: by how much the logit of the true capital minus that of the one which the text claims falls when the direct
    path from the head to the logits at the last token carries what the head gives where country and claim are replaced
    by others of as many tokens, with all other heads held as they are and MLPs recomputed, over the mean size of this difference (path patching, S_m of Jin et al. 2024). Chance: the same for both capitals of a third
    prompt, which neither prompt names, on average at least 0. Differs: logits in place of probabilities, which small models leave near 0.
    """
    found = conflict_effects(model, batch)
    chance = chance_at_least_zero(-found.unrelated)
    return Measured(torch.from_numpy(-found.claimed), torch.from_numpy(chance))


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """Mean ablation at the last token; other prompts about the same country would leave what is remembered in place."""
    return averaged_at(model, batch, metric, batch.positions["end"].reshape(-1, 1))
