"""Heads that attend a fixed number of places away, other than at the token itself or the one before."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import at_offset, mean_of
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated

REACH = 16  # offsets 2..16 back, and in encoders 1..16 ahead as well


@detector(
    head_type="positional-head",
    task=repeated,
    version=1,
    minimum_effect=0.2,
    attention="both",
    finds=("positional",),
)
def positional(layer: LayerView, batch: Batch) -> Tensor:
    """Attention at the head's best fixed offset, 0 and -1 left out: 0 no such offset, 1 all mass at one offset.

    Formula: max over k in 2..16 (encoders also -16..-1) of the mean over queries of A[i, i - k], on random tokens, so that
    content cannot explain it (Voita et al. 2019). Chance: the second best offset that is no neighbour of the best, which
    asks that the mass is concentrated.
    """
    return _by_offset(layer).amax(-1)


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The second best offset at least two places from the best: [example, head]."""
    means = _by_offset(layer)
    places = torch.arange(means.shape[-1], device=means.device)
    near = (places - means.argmax(-1, keepdim=True)).abs() < 2
    return means.masked_fill(near, 0.0).amax(-1)


def _by_offset(layer: LayerView) -> Tensor:
    """Mean attention per offset, [example, head, offset], without 0 and 1."""
    if layer.causal:
        later = (layer.text_positions >= REACH)[:, None, :, None]
        return mean_of(layer.band(0, REACH)[..., 2:].masked_fill(~later, torch.nan), -2)
    low, high = mean_of(layer.band(-REACH, -1), -2), mean_of(layer.band(0, REACH)[..., 2:], -2)
    # An empty column between the two ranges keeps offsets -1 and 2 from counting as neighbours.
    return torch.cat([low, torch.zeros_like(low[..., :2]), high], -1).nan_to_num(0.0)


def planted(batch: Batch) -> Planted:
    """Every token attends three places back."""
    length = batch.tokens.shape[1]
    return Planted(at_offset((len(batch), length, length), 3))


def look_alike(batch: Batch) -> Planted:
    """A previous-token head: fixed, but at the offset that has a type of its own."""
    length = batch.tokens.shape[1]
    return Planted(at_offset((len(batch), length, length), 1))
