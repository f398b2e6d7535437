"""Heads that attend to the special tokens around a text: [CLS] and [SEP]."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, mean_of, where_queries
from headatlas.task import Batch
from headatlas.tasks.prose import prose
from headatlas.treebanks.sieve import THRESHOLD


@detector(head_type="delimiter-head", task=prose, version=1, minimum_effect=0.05, attention="bidirectional")
def delimiter(layer: LayerView, batch: Batch) -> Tensor:
    """Attention on [CLS] and [SEP]: 0 none, 1 all.

    Formula: mean over all queries of the sum of A[i, j] over the special tokens j around the text (Pande et al. 2021: their sieve
    bias score, the mean weight on a sieve over the mean weight on all tokens, is this times the number of tokens over the
    number of special ones). Chance: three times what uniform attention puts there, the score of 3 that the paper's test
    asks a head to exceed, or the mass on as many tokens of the text right beside them where that is more. Differs: one
    text and its two special tokens, no pairs of sentences.
    """
    return _mass(layer, batch.positions["special"])


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The larger of THRESHOLD times the share of uniform attention and of the mass beside the special tokens: [example, head]."""
    special = (batch.positions["special"] >= 0).sum(1).to(layer.q.device)
    uniform = THRESHOLD * special / layer.valid_keys.sum(1)
    return torch.maximum(_mass(layer, batch.positions["beside"]), uniform[:, None])


def _mass(layer: LayerView, places: Tensor) -> Tensor:
    mass = layer.columns(places.to(layer.q.device)).nan_to_num(0.0).sum(-1)  # [example, head, query]
    known = layer.valid_queries & (places >= 0).any(1, keepdim=True).to(layer.q.device)
    return mean_of(where_queries(mass, known))


def planted(batch: Batch) -> Planted:
    """Every token attends to the special tokens, evenly."""
    return Planted(_all_to(batch, batch.positions["special"]))


def look_alike(batch: Batch) -> Planted:
    """A head that attends to the first and the last token of the text itself."""
    return Planted(_all_to(batch, batch.positions["beside"]))


def _all_to(batch: Batch, places: Tensor) -> Tensor:
    n, length = batch.tokens.shape
    queries = torch.arange(length).repeat_interleave(places.shape[1]).expand(n, -1)
    return aimed((n, length, length), queries, places.repeat(1, length))
