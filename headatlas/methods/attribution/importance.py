"""Importance of heads by the loss's gradient in a mask on each (Michel, Levy, Neubig 2019, Are Sixteen Heads Really Better than One?)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from headatlas.edits.collect import pieces
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.prompts import Prompts, prompts_for
from headatlas.methods.sweeps.gradient_estimate import slopes_in_z
from headatlas.model import LayerView, Model
from headatlas.model.core.pass_context import Inputs
from headatlas.ops.types import Array, LayerKey
from headatlas.scores import grid
from headatlas.task import Batch, Metric
from headatlas.task.answers import log_probability


@dataclass(frozen=True)
class HeadImportance:
    """raw [head]: mean over tokens of |z . dL/dz|, in units of the metric; normed [head]: divided by the layer's L2 norm."""

    heads: tuple[HeadId, ...]
    raw: Array
    normed: Array

    def order(self) -> list[HeadId]:
        """The heads in rising importance, in which they are pruned; equals by layer and head."""
        return [self.heads[i] for i in np.argsort(self.normed, kind="stable")]

    def grid(self, stack: str | None = None) -> Array:
        """[layer, head] of `normed` of one stack (the first unless named)."""
        return grid(self.heads, self.normed, stack)


def head_importance(model: Model, batch: Inputs | Prompts, metric: Metric | None = None) -> HeadImportance:
    """How much the metric would change, to first order, if a head's output were scaled at single tokens.

    |dL/dm| of a mask m on the head's output z is |z . dL/dz|, taken at each token and averaged over the tokens of all texts, as
    the authors' code has it (where the absolute value is taken of the sum over tokens instead, effects of two tokens cancel).
    metric: such as next_token_loss; None: that of the prompts. An encoder's texts are masked first (`headatlas.task.encoders.masked`). Raises BadInput for a
    metric without a slope in the run without changes, UnsupportedModel where no gradient can be taken.
    """
    if metric is None or not isinstance(batch, Batch):
        read = prompts_for(model, batch, demand=False, unanswered=log_probability)
        batch, metric = read.batch, metric or read.metric
    if metric.level:
        raise BadInput(f"The {metric.name} has no slope in the run without changes.", "Choose a loss.")
    place = {head: i for i, head in enumerate(model.heads)}
    sums, tokens = np.zeros(len(place)), dict.fromkeys(model.stacks, 0)
    for part in pieces(batch):
        outputs: dict[LayerKey, Tensor] = {}

        def keep(layer: LayerView, outputs: dict[LayerKey, Tensor] = outputs) -> None:
            outputs[layer.stack, layer.index] = layer.z.detach().clone()

        slopes = slopes_in_z(model, part, metric, watch=keep)
        for (stack, layer), slope in slopes.items():
            real = part.side("encoder" if stack == "encoder" else "decoder").mask.to(slope.device)
            felt = (slope.float() * outputs[stack, layer].to(slope.device).float()).sum(-1).abs()
            first = place[model.layer(layer, stack).heads[0]]
            sums[first : first + felt.shape[2]] += (felt * real[..., None]).sum((0, 1)).double().cpu().numpy()
        for stack in tokens:
            tokens[stack] += int(part.side("encoder" if stack == "encoder" else "decoder").mask.sum())
    raw = sums / np.array([max(tokens[head.stack], 1) for head in model.heads])
    normed = raw.copy()
    for one in model.layers:
        rows = [place[head] for head in one.heads]
        normed[rows] /= np.linalg.norm(raw[rows]) + 1e-20
    return HeadImportance(model.heads, raw, normed)
