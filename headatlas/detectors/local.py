"""Heads that attend to their neighbourhood, wherever in it."""

import torch
from torch import Tensor

from headatlas.detector import MATCHERS, Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import at_offset, mean_of
from headatlas.task import Batch
from headatlas.tasks.prose import prose

WINDOW = 8


@detector(
    head_type="local-head",
    task=prose,
    version=2,
    minimum_effect=0.5,
    attention="both",
    finds=("window",),
    # In prose most words are unknown to a planted vocabulary, so heads that match contents find matches next door.
    undecided=(*MATCHERS, "delimiter"),
)
def local(layer: LayerView, batch: Batch) -> Tensor:
    """Share of attention within the last 8 tokens, the current one included: 0 all elsewhere, 1 all within.

    Formula: mean over queries i >= 16 of sum over k < 8 of A[i, i - k] (encoders: |k| < 8). Chance: the larger of the share of
    the equally wide window just beyond, which is equal for a head without a preference for near tokens, and of the share of
    the head's best single offset, which is all of it for a head that attends to the token before, to itself, or to another
    fixed place.
    """
    return _shares(layer, 0, WINDOW - 1).sum(-1)


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The larger of the share of the next window out and that of the best single offset: [example, head]."""
    return torch.maximum(_shares(layer, WINDOW, 2 * WINDOW - 1).sum(-1), _shares(layer, 0, WINDOW - 1).amax(-1))


def _shares(layer: LayerView, near: int, far: int) -> Tensor:
    """Mean attention over queries at each offset from `near` to `far`: [example, head, offset]."""
    low = 0 if layer.causal else -(2 * WINDOW - 1)
    band = layer.band(low, 2 * WINDOW - 1)
    offsets = torch.arange(low, 2 * WINDOW, device=band.device)
    inside = (offsets.abs() >= near) & (offsets.abs() <= far)
    # Only queries whose both windows lie within the text behind them; offsets ahead of the text's end count as nothing.
    queries = (layer.text_positions >= 2 * WINDOW)[:, None, :, None]
    return mean_of(band[..., inside].nan_to_num(0.0).masked_fill(~queries, torch.nan), -2)


def planted(batch: Batch) -> Planted:
    """Every token spreads over its last eight."""
    length = batch.tokens.shape[1]
    shape = (len(batch), length, length)
    return Planted(torch.stack([at_offset(shape, k) for k in range(WINDOW)]).mean(0))


def look_alike(batch: Batch) -> Planted:
    """A previous-token head: near, but always at one place."""
    length = batch.tokens.shape[1]
    return Planted(at_offset((len(batch), length, length), 1))
