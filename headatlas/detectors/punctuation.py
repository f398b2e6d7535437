"""Heads that attend to punctuation."""

import weakref

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, mean_of
from headatlas.task import Batch
from headatlas.tasks.prose import prose

# The score and its chance level ask for the same means of a layer.
_KNOWN: weakref.WeakKeyDictionary[LayerView, dict[int, Tensor]] = weakref.WeakKeyDictionary()


@detector(
    head_type="punctuation-head",
    task=prose,
    version=2,
    minimum_effect=0.1,
    attention="both",
    finds=("delimiter",),
)
def punctuation(layer: LayerView, batch: Batch) -> Tensor:
    """Attention on punctuation marks: 0 none, 1 all.

    Formula: mean over queries that are no punctuation themselves of the sum of A[i, j] over punctuation keys j (Clark et al.
    2019; Kovaleva et al. 2019). Chance: the largest of the sums over the tokens just before these keys, over those just after
    them, and over the one mark that gets most: a head that looks for a single token, as heads of random weights do, attends
    to no class of tokens.
    """
    return _mass(layer, batch, 0)


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The largest of the masses before and after the punctuation, and on its most attended token alone: [example, head]."""
    marks = batch.positions["delimiters"].to(layer.q.device)
    tokens = batch.tokens.to(marks.device).gather(1, marks.clamp(min=0)).masked_fill(marks < 0, -1)
    same = (tokens[:, :, None] == tokens[:, None, :]).float()  # [example, mark, mark]
    alone = (_by_mark(layer, batch, 0).nan_to_num(0.0) @ same).amax(-1)
    around = torch.maximum(_mass(layer, batch, -1), _mass(layer, batch, 1))
    return torch.maximum(around, alone.masked_fill(around.isnan(), torch.nan))


def _mass(layer: LayerView, batch: Batch, shift: int) -> Tensor:
    found = _by_mark(layer, batch, shift)
    return found.nansum(-1).masked_fill(found.isnan().all(-1), torch.nan)


def _by_mark(layer: LayerView, batch: Batch, shift: int) -> Tensor:
    """Mean attention over queries on each mark, or `shift` tokens from it: [example, head, mark], NaN where undefined."""
    known = _KNOWN.setdefault(layer, {})
    if shift not in known:
        known[shift] = _measured(layer, batch, shift)
    return known[shift]


def _measured(layer: LayerView, batch: Batch, shift: int) -> Tensor:
    marks = batch.positions["delimiters"].to(layer.q.device)
    keys = torch.where(marks >= 0, (marks + shift).clamp(0, layer.n_keys - 1), -1)
    queries = layer.valid_queries & (batch.marks["delimiter"].to(layer.q.device) == 0)
    # A mark right before or after counts for the offset, not for being punctuation: queries next to the first mark wait.
    seen = torch.arange(layer.n_queries, device=keys.device) > marks[:, :1] + 1
    queries = queries & seen if layer.causal else queries
    # A mark that does not exist, or that a query cannot see, gets nothing: it counts as zero in the mean over queries.
    weights = layer.columns(keys).nan_to_num(0.0)  # [example, head, query, mark]
    return mean_of(weights.masked_fill(~queries[:, None, :, None], torch.nan), -2)


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
