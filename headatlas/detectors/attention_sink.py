"""Heads that rest on the first token."""

import torch
from torch import Tensor

from headatlas.detector import MATCHERS, Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, mean_of, where_queries
from headatlas.task import Batch
from headatlas.tasks.prose import prose


@detector(
    head_type="attention-sink-head",
    task=prose,
    version=1,
    minimum_effect=0.6,
    attention="both",
    finds=("sink", "dormant"),
    # What a head of graded strength leaves over, and all of it where nothing matches, rests on the first token.
    undecided=(*MATCHERS, "positional", "window", "delimiter"),
)
def attention_sink(layer: LayerView, batch: Batch) -> Tensor:
    """Attention on the first token of the text (the start token where there is one): 0 none, 1 all.

    Formula: mean over queries i >= 2 of A[i, 0] on prose (Xiao et al. 2023; Guo et al. 2024). Chance: the same for the
    second token.
    """
    return _mass(layer, 0)


def control(layer: LayerView, batch: Batch) -> Tensor:
    """Attention on the second token: [example, head]."""
    return _mass(layer, 1)


def _mass(layer: LayerView, place: int) -> Tensor:
    first = layer.valid_keys.float().argmax(1, keepdim=True)  # past left padding
    return mean_of(where_queries(layer.columns(first + place)[..., 0], layer.text_positions >= 2))


def planted(batch: Batch) -> Planted:
    """Every token attends to the first."""
    length = batch.tokens.shape[1]
    nowhere = torch.full((len(batch), 1), -1)
    return Planted(aimed((len(batch), length, length), nowhere, nowhere))


def look_alike(batch: Batch) -> Planted:
    """A head that rests on the second token."""
    length = batch.tokens.shape[1]
    queries = torch.arange(1, length).expand(len(batch), -1)
    return Planted(aimed((len(batch), length, length), queries, torch.ones_like(queries)))
