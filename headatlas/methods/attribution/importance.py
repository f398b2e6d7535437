"""Importance of heads from one backward pass: Michel, Levy, Neubig 2019 (Are Sixteen Heads Really Better than One?), and its kin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from headatlas.choices import IMPORTANCE
from headatlas.edits.base import OnHeads
from headatlas.edits.collect import pieces
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.attribution.relevance import relevances
from headatlas.methods.prompts import Prompts, demand_logits, measured_by, prompts_for
from headatlas.methods.sweeps.gradient_estimate import slopes_in_z
from headatlas.model import LayerView, Model
from headatlas.model.core.pass_context import Inputs
from headatlas.ops.types import Array, LayerKey
from headatlas.scores import grid
from headatlas.task import Batch, Metric, next_token_loss
from headatlas.task.answers import log_probability
from headatlas.task.encoders import masked, masked_token_loss


@dataclass(frozen=True)
class HeadImportance:
    """How much heads matter by one backward pass.

    raw [head]: by "mask" the mean over tokens of |z . dL/dz|, by "gradient" of the length of dL/dz, both in units of the
    metric; by "lrp" the relevance that a head gets of a chosen logit, mean over these, with its sign. normed [head]: divided by
    the layer's L2 norm, by "lrp" by the sum of the sizes in its layer. facts: model, prompts, metric, method.
    """

    heads: tuple[HeadId, ...]
    raw: Array
    normed: Array
    facts: Mapping[str, Any] = field(default_factory=dict)

    def order(self) -> list[HeadId]:
        """The heads in rising importance (its size), in which they are pruned; equals by layer and head."""
        return [self.heads[i] for i in np.argsort(np.abs(self.normed), kind="stable")]

    def grid(self, stack: str | None = None) -> Array:
        """[layer, head] of `normed` of one stack (the first unless named)."""
        return grid(self.heads, self.normed, stack)

    @property
    def data(self) -> dict[str, Any]:
        """As JSON: facts, and by head ("18.6") both numbers, the most important first."""
        at = {head: i for i, head in enumerate(self.heads)}
        rows = {
            str(head): {"raw": float(self.raw[at[head]]), "normed": float(self.normed[at[head]])}
            for head in reversed(self.order())
        }
        return {**self.facts, "heads": rows}


def head_importance(
    model: Model,
    batch: Inputs | Prompts,
    metric: Metric | str | None = None,
    *,
    method: str = "mask",
    edits: Sequence[OnHeads] = (),
) -> HeadImportance:
    """How much heads matter by one forward and one backward pass, without removing any.

    method: "mask" is how much the metric would change, to first order, if a head's output z were scaled at single tokens:
    |dL/dm| of a mask m on it is |z . dL/dz|, taken at each token and averaged over the tokens of all texts, as the authors' code
    has it (where the absolute value is taken of the sum over tokens instead, effects of two tokens cancel). "gradient" is the
    length of dL/dz, whatever the head gives. "lrp" is the head's relevance (Voita et al. 2019, `relevance.relevances`) for the
    model's likeliest token at each position that the metric reads; the metric itself is not asked.
    metric: such as next_token_loss; None: that of the prompts. An encoder's texts are masked where
    next_token_loss would be read, and masked_token_loss is (`headatlas.task.encoders.masked`).
    edits: in force meanwhile, such as heads that were removed before; not with "lrp".
    Raises BadInput for a metric without a slope in the run without changes, UnsupportedModel where no gradient can be taken.
    """
    IMPORTANCE.demand(method)
    if edits and method == "lrp":
        raise BadInput("Relevance is told of a model without edits.", 'Leave edits out, or take method="mask".')
    name, facts = "a batch", {}
    if metric is None or isinstance(metric, str) or not isinstance(batch, Batch):
        read = prompts_for(model, measured_by(batch, metric), demand=False, unanswered=log_probability)
        batch, metric, name, facts = read.batch, read.metric, read.name, dict(read.facts)
    if method != "lrp":  # which says so itself
        demand_logits(model, metric)
    batch, metric = masked_for_encoders(model, batch, metric)
    if metric.level and method != "lrp":
        raise BadInput(f"The {metric.name} has no slope in the run without changes.", "Choose a loss.")
    place = {head: i for i, head in enumerate(model.heads)}
    sums, counts = np.zeros(len(place)), dict.fromkeys(model.stacks, 0)
    done = 0
    for part in pieces(batch):
        mine = [edit.rows(slice(done, done + len(part))) for edit in edits]
        done += len(part)
        felt, logits = (
            relevances(model, part, metric) if method == "lrp" else (_felt(model, part, metric, method, mine), 0)
        )
        for (stack, layer), values in felt.items():
            real = _mask(part, stack).to(values.device)
            first = place[model.layer(layer, stack).heads[0]]
            sums[first : first + values.shape[2]] += (values * real[..., None]).sum((0, 1)).double().cpu().numpy()
        for stack in counts:
            counts[stack] += logits if method == "lrp" else int(_mask(part, stack).sum())
    raw = sums / np.array([max(counts[head.stack], 1) for head in model.heads])
    normed = raw.copy()
    for one in model.layers:
        rows = [place[head] for head in one.heads]
        normed[rows] /= np.linalg.norm(raw[rows], 1 if method == "lrp" else 2) + 1e-20
    facts = {
        "model": model.name,
        "prompts": name,
        "metric": metric.name,
        "unit": metric.unit,
        "method": method,
        **facts,
    }
    return HeadImportance(model.heads, raw, normed, facts)


def masked_for_encoders(model: Model, batch: Batch, metric: Metric) -> tuple[Batch, Metric]:
    """The batch and metric as they are; where an encoder's next-token loss is asked, its texts masked and masked_token_loss."""
    if metric is next_token_loss and model.kind == "encoder" and model.tokenizer.mask is not None:
        return masked(batch, model.tokenizer, model.tokenizer.mask), masked_token_loss
    return batch, metric


def _felt(model: Model, part: Batch, metric: Metric, method: str, edits: Sequence[OnHeads]) -> dict[LayerKey, Tensor]:
    """(stack, layer) -> [example, position, head] what each token of a head's output bears on the metric."""
    outputs: dict[LayerKey, Tensor] = {}

    def keep(layer: LayerView) -> None:
        outputs[layer.stack, layer.index] = layer.z.detach().clone()

    slopes = slopes_in_z(model, part, metric, watch=None if method == "gradient" else keep, edits=edits)
    if method == "gradient":
        return {key: slope.float().norm(dim=-1) for key, slope in slopes.items()}
    return {key: (slope.float() * outputs[key].to(slope.device).float()).sum(-1).abs() for key, slope in slopes.items()}


def _mask(part: Batch, stack: str) -> Tensor:
    return part.side("encoder" if stack == "encoder" else "decoder").mask
