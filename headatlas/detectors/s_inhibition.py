"""Heads that notice which name has come twice and keep the name movers away from it."""

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.name_movers import attention_to, effect_unit, find_name_heads, find_name_movers
from headatlas.heads import HeadId
from headatlas.methods.path_patching.receivers import Receiver
from headatlas.methods.path_patching.sweep import path_patch
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch
from headatlas.tasks.ioi import ioi


@model_detector(
    head_type="inhibition-head",
    task=ioi,
    version=1,
    minimum_effect=0.01,
    needs=("unembedding",),
    verdict_positions="end",
)
def s_inhibition(model: Model, batch: Batch) -> Measured:
    """Loss when the message to the name movers' queries is another one: 0 none, 1 the whole logit difference.

    Formula: (clean - patched) / mean clean logit difference, times A[END, S2] / (A[END, IO] + A[END, S1] + A[END, S2]).
    Patched: the path from the head to the queries of all name movers at the last token carries what it carries on prompts
    with three other names (path patching, Wang et al. 2022, section 3.2); the second factor keeps those that read the
    second S among the names, as the paper finds of them. Chance: the same with the queries of as many random heads of the
    same layers that are no name movers, negative ones included. NaN for heads that no name mover comes after, for all
    heads of a model without name movers, and where the model does not do the task. Minimum effect: 1% of the logit
    difference, the bound of the paper's minimality. The verdict removes the heads at the last token.
    """
    gone = find_name_movers(model)
    nothing = torch.full((len(batch), len(model.heads)), torch.nan, dtype=torch.float64)
    if not gone or batch.counterfactual is None:
        return Measured(nothing, nothing.clone())
    values, control = _inhibition(model, batch, gone, find_name_heads(model))
    return Measured(torch.from_numpy(values), torch.from_numpy(control))


def _inhibition(
    model: Model, batch: Batch, receiving: tuple[HeadId, ...], named: tuple[HeadId, ...]
) -> tuple[Array, Array]:
    """(score, chance) [example, head] of paths into the queries of `receiving`; `named` are not among the random heads."""
    free = sorted(set(model.heads) - {*receiving, *named})
    others = tuple(sorted(matched(receiving, free, np.random.default_rng(0))))
    last = max(head.layer for head in receiving)
    senders = [head for head in model.heads if head.layer < last]
    found = path_patch(
        model,
        batch,
        senders,
        [Receiver("q", receiving), Receiver("q", others)],
        positions="end",
    )
    attention = attention_to(model, batch, ("io", "s1", "s2")).double().cpu().numpy()
    share = attention[..., 2] / attention.sum(-1)
    lost = np.full((2, len(batch), len(model.heads)), np.nan)
    lost[:, :, [model.heads.index(head) for head in senders]] = (found.base[:, None, None] - found.values).transpose(
        2, 0, 1
    )
    values, control = lost / effect_unit(found.base) * share
    return values, control
