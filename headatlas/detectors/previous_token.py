"""Heads that attend to the token just before."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import at_offset, mean_of, where_queries
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated


@detector(
    head_type="previous-head",
    task=repeated,
    version=1,
    minimum_effect=0.3,
    attention="both",
    finds=("previous",),
)
def previous_token(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from each token to the one before it: 0 never, 1 always.

    Formula: mean over queries i >= 2 of A[i, i - 1] on random tokens (Clark et al. 2019; Elhage et al. 2021). Chance: the
    largest such mean at the rival offsets 0, 2, 3 and 4, so that a head that spreads over its neighbourhood does not count.
    """
    return mean_of(where_queries(layer.band(0, 4)[..., 1], layer.text_positions >= 2))  # the band that chance needs too


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The largest mean attention at offsets 0, 2, 3 and 4: [example, head]."""
    band, later = layer.band(0, 4), layer.text_positions >= 2
    return torch.stack([mean_of(where_queries(band[..., k], later)) for k in (0, 2, 3, 4)]).amax(0)


def planted(batch: Batch) -> Planted:
    """Every token attends to the one before it."""
    length = batch.tokens.shape[1]
    return Planted(at_offset((len(batch), length, length), 1))


def look_alike(batch: Batch) -> Planted:
    """A local head that spreads over its last five tokens."""
    length = batch.tokens.shape[1]
    shape = (len(batch), length, length)
    return Planted(torch.stack([at_offset(shape, k) for k in range(5)]).mean(0))
