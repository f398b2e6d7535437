"""Heads that read who is to be named next and write that name straight to the logits."""

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.name_movers import MINIMUM_EFFECT, name_mover_scores
from headatlas.methods.path_patching.direct_effect import DirectPath
from headatlas.model import Model
from headatlas.task import Batch, Metric
from headatlas.tasks.ioi import ioi


@model_detector(
    head_type="name-mover-head",
    task=ioi,
    version=1,
    minimum_effect=MINIMUM_EFFECT,
    needs=("unembedding",),
)
def name_mover(model: Model, batch: Batch) -> Measured:
    """Direct effect of copying the indirect object from its token: 0 none, 1 the whole logit difference.

    Formula: (d(IO) + min(0, d(S))) / mean clean logit difference. d(x): what the head writes at the last token on logit(IO) -
    logit(S) when it attends to name x, A[END, x] v_x W_O through the final norm at its scale in the run, S at both its
    places (direct logit attribution; Wang et al. 2022, section 3.1 and figure 3). It is large only where a head attends
    to IO, copies it, and does not copy S as well. Chance: the same on prompts in which the second S is a third name,
    so that nothing says who is to be named, and not below 0. NaN where the model does not do the task: there is nothing to have a share of.
    Minimum effect: 2% of the logit difference, the least that the reference's circuits count. The verdict takes away the
    direct path alone: when name movers are ablated whole, others take over (5% of the difference in GPT-2).
    """
    scores = name_mover_scores(model, batch)
    return Measured(torch.from_numpy(scores.values), torch.from_numpy(scores.control))


def removal(model: Model, batch: Batch, metric: Metric) -> DirectPath:
    """The direct path of the heads replaced by that on other names."""
    return DirectPath(model, batch, metric)
