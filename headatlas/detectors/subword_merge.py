"""Heads that attend to the other pieces of their own word."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, at_offset
from headatlas.task import Batch
from headatlas.tasks.prose import prose


@detector(head_type="subword-merge-head", task=prose, version=1, minimum_effect=0.15, attention="both")
def subword_merge(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from a later piece of a word to its earlier pieces: 0 none, 1 all.

    Formula: mean over pieces i that do not begin a word of the sum of A[i, j] over earlier pieces j of the same word (after
    Correia et al. 2019). Chance: the same offsets from pieces that begin a word, so that a previous-token head does not count.
    """
    return _mass(layer, batch, "piece")


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The same offsets seen from first pieces: [example, head]."""
    return _mass(layer, batch, "start")


def _mass(layer: LayerView, batch: Batch, what: str) -> Tensor:
    queries, keys = (
        batch.positions[f"{what}_query"].to(layer.q.device),
        batch.positions[f"{what}_key"].to(layer.q.device),
    )
    total = layer.entries(queries, keys).float().nansum(-1)
    # A word of three pieces gives three pairs but two queries: the mean is over queries.
    distinct = torch.tensor([len(set(row[row >= 0].tolist())) for row in queries.cpu()], device=total.device)
    return (total / distinct.clamp(min=1)[:, None]).masked_fill((distinct == 0)[:, None], torch.nan)


def planted(batch: Batch) -> Planted:
    """Every later piece attends to the earlier pieces of its word."""
    n, length = batch.tokens.shape
    return Planted(aimed((n, length, length), batch.positions["piece_query"], batch.positions["piece_key"]))


def look_alike(batch: Batch) -> Planted:
    """A previous-token head, which finds the earlier piece by place alone."""
    n, length = batch.tokens.shape
    return Planted(at_offset((n, length, length), 1))
