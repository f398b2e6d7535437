"""Heads that attend a fixed number of places away, other than at the token itself."""

import torch
from torch import Tensor

from headatlas.detector import Measured, Planted, detector
from headatlas.detectors._measures.chosen_place import chosen_elsewhere
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import at_offset, mean_of
from headatlas.task import Batch
from headatlas.tasks.repeated import repeated

REACH = 16  # offsets 1..16 back, and in encoders 1..16 ahead as well


@detector(
    head_type="positional-head",
    task=repeated,
    version=2,
    minimum_effect=0.2,
    attention="both",
    finds=("positional", "previous"),
)
def positional(layer: LayerView, batch: Batch) -> Tensor:
    """Attention at the head's best fixed offset, the token itself left out: 0 no such offset, 1 all mass at one offset.

    Formula: mean over queries of A[i, i - k] on random tokens, so that content cannot explain it, at the offset k in 1..16
    (encoders also -16..-1) that is best on one half of the examples, over the other half (Voita et al. 2019, whose positional heads attend
    to a neighbour). Chance: the same at the best rival there that is no neighbour of k, which asks that the mass is
    concentrated.
    """
    if layer.causal:
        later = (layer.text_positions >= REACH)[:, None, :, None]
        return mean_of(layer.band(0, REACH)[..., 1:].masked_fill(~later, torch.nan), -2)
    # Column REACH is the token itself, which no head is to be found at.
    means = mean_of(layer.band(-REACH, REACH), -2).nan_to_num(0.0)
    means[..., REACH] = 0.0
    return means


def settle(found: Tensor) -> Measured:
    """The best offset and its best rival, chosen on half of the examples: [example, head] each."""
    return chosen_elsewhere(found, apart=2)


def planted(batch: Batch) -> Planted:
    """Every token attends three places back."""
    length = batch.tokens.shape[1]
    return Planted(at_offset((len(batch), length, length), 3))


def look_alike(batch: Batch) -> Planted:
    """A local head that spreads over its last five tokens."""
    length = batch.tokens.shape[1]
    shape = (len(batch), length, length)
    return Planted(torch.stack([at_offset(shape, k) for k in range(5)]).mean(0))
