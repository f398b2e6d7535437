"""Heads that attend to punctuation."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, mean_of, where_queries
from headatlas.task import Batch
from headatlas.tasks.prose import prose


@detector(
    head_type="delimiter-head",
    task=prose,
    version=1,
    minimum_effect=0.25,
    attention="both",
    finds=("delimiter",),
)
def delimiter(layer: LayerView, batch: Batch) -> Tensor:
    """Attention on punctuation marks: 0 none, 1 all.

    Formula: mean over queries that are no punctuation themselves of the sum of A[i, j] over punctuation keys j (Clark et al.
    2019; Kovaleva et al. 2019). Chance: the larger of the sums over the tokens just before and just after these keys.
    """
    return _mass(layer, batch, 0)


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The larger of the masses on the tokens before and after the punctuation: [example, head]."""
    return torch.maximum(_mass(layer, batch, -1), _mass(layer, batch, 1))


def _mass(layer: LayerView, batch: Batch, shift: int) -> Tensor:
    marks = batch.positions["delimiters"].to(layer.q.device)
    keys = torch.where(marks >= 0, (marks + shift).clamp(0, layer.n_keys - 1), -1)
    queries = layer.valid_queries & (batch.marks["delimiter"].to(layer.q.device) == 0)
    # A mark right before or after counts for the offset, not for being punctuation: queries next to the first mark wait.
    seen = torch.arange(layer.n_queries, device=keys.device) > marks[:, :1] + 1
    return mean_of(where_queries(layer.columns(keys).nansum(-1), queries & seen if layer.causal else queries))


def planted(batch: Batch) -> Planted:
    """Every token attends to the last punctuation mark before it."""
    marks, (n, length) = batch.marks["delimiter"] == 1, batch.tokens.shape
    places = torch.where(marks, torch.arange(length), -1).cummax(1).values
    before = torch.cat([torch.full((n, 1), -1), places[:, :-1]], 1)
    return Planted(aimed((n, length, length), torch.arange(length).expand(n, -1), before))


def look_alike(batch: Batch) -> Planted:
    """A head that attends to the first token."""
    n, length = batch.tokens.shape
    nowhere = torch.full((n, 1), -1)
    return Planted(aimed((n, length, length), nowhere, nowhere))
