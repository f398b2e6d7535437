"""Heads that attend to the rarest words of the text."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, mean_of, where_queries
from headatlas.task import Batch
from headatlas.tasks.prose import prose


@detector(head_type="rare-words-head", task=prose, version=2, minimum_effect=0.1, attention="both")
def rare_words(layer: LayerView, batch: Batch) -> Tensor:
    """Attention on the two rarest words of the text: 0 none, 1 all.

    Formula: mean over the queries after both words of the sum of A[i, j] over their pieces j; rarity is the vocabulary rank
    of the rarest piece, words have four letters or more (Voita et al. 2019). Chance: the same for as many pieces of two ordinary
    words of the same text. Differs: the paper counts how often the largest weight falls on the rarest word.
    """
    return _mass(layer, batch, "rare")


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The mass on two ordinary words: [example, head]."""
    return _mass(layer, batch, "ordinary")


def _mass(layer: LayerView, batch: Batch, words: str) -> Tensor:
    keys = batch.positions[words].to(layer.q.device)
    last = torch.maximum(batch.positions["rare"].amax(1), batch.positions["ordinary"].amax(1)).to(layer.q.device)
    later = layer.valid_queries & (torch.arange(layer.n_queries, device=keys.device) > last[:, None] + 2)
    mass = mean_of(where_queries(layer.columns(keys).nansum(-1), later))
    return mass.masked_fill((last < 0)[:, None], torch.nan)


def planted(batch: Batch) -> Planted:
    """Every later token attends to the pieces of the rarest words."""
    n, length = batch.tokens.shape
    keys = batch.positions["rare"]
    pieces = keys.shape[1]
    queries = torch.arange(length).repeat_interleave(pieces).expand(n, -1)
    targets = keys.repeat(1, length)
    return Planted(aimed((n, length, length), torch.where(queries > targets, queries, -1), targets))


def look_alike(batch: Batch) -> Planted:
    """A head that attends to two ordinary words."""
    n, length = batch.tokens.shape
    keys = batch.positions["ordinary"]
    queries = torch.arange(length).repeat_interleave(keys.shape[1]).expand(n, -1)
    targets = keys.repeat(1, length)
    return Planted(aimed((n, length, length), torch.where(queries > targets, queries, -1), targets))
