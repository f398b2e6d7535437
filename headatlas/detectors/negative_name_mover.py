"""Heads that attend to a name and write straight against it."""

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.name_movers import MINIMUM_EFFECT, negative_name_mover_scores
from headatlas.methods.path_patching.direct_effect import DirectPath
from headatlas.model import Model
from headatlas.task import Batch, Metric
from headatlas.tasks.ioi import ioi


@model_detector(
    head_type="negative-name-mover-head",
    task=ioi,
    version=1,
    minimum_effect=MINIMUM_EFFECT,
    needs=("unembedding",),
)
def negative_name_mover(model: Model, batch: Batch) -> Measured:
    """Direct effect against the names that a head attends to: 0 none, 1 as large as the logit difference.

    Formula: (d(S) - d(IO)) / mean clean logit difference, d(x) being what the head writes at the last token on logit(IO) -
    logit(S) when it attends to name x (S at both places; Wang et al. 2022, section 3.1: the negative name movers). Taken from
    IO it counts when it lowers IO, taken from S when it lowers S: the sign is that of the OV circuit, not that of the effect
    on the task, which such heads hurt when they read IO and help when they read S (as in GPT-2 medium and Pythia).
    Chance: the same head on the names of another prompt instead of the attended ones. NaN where the model does not do the
    task. Minimum effect: 2% of the logit difference. The verdict takes away the direct path alone.
    """
    scores = negative_name_mover_scores(model, batch)
    return Measured(torch.from_numpy(scores.values), torch.from_numpy(scores.control))


def removal(model: Model, batch: Batch, metric: Metric) -> DirectPath:
    """The direct path of the heads replaced by that on other names."""
    return DirectPath(model, batch, metric)
