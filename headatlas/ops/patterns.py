"""Small pure functions on attention weights and positions."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_of(x: Tensor, dim: int | tuple[int, ...] = -1) -> Tensor:
    """Mean over `dim` leaving out NaN, in float32; NaN where nothing is left."""
    return x.float().nanmean(dim)


def where_queries(x: Tensor, keep: Tensor) -> Tensor:
    """Set [example, head, query] to NaN outside the queries in `keep` [example, query]."""
    return x.masked_fill(~keep.unsqueeze(1), torch.nan)


def aimed(shape: tuple[int, int, int], queries: Tensor, keys: Tensor, strength: float = 1.0) -> Tensor:
    """A pattern [example, query, key] in which queries[e, i] attends to keys[e, i], all other queries to key 0.

    Negative positions are left out. What `strength` leaves over goes to key 0.
    """
    pattern = torch.zeros(shape)
    pattern[:, :, 0] = 1.0
    example, place = ((queries >= 0) & (keys >= 0)).nonzero(as_tuple=True)
    rows, columns = queries[example, place], keys[example, place]
    pattern[example, rows, 0] = 1.0 - strength
    share = torch.zeros(shape)
    share.index_put_((example, rows, columns), torch.ones(len(rows)), accumulate=True)
    total = share.sum(-1, keepdim=True)
    hit = total.squeeze(-1) > 0
    pattern[hit] += strength * (share / total.clamp(min=1))[hit]
    return pattern


def every_pair(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Queries [example, n] and keys [example, m] as two lists of n x m places: each query with each key."""
    return queries.repeat_interleave(keys.shape[1], 1), keys.repeat(1, queries.shape[1])


def at_offset(shape: tuple[int, int, int], k: int) -> Tensor:
    """A pattern [example, query, key] in which every query attends `k` places back; queries without such a key attend to key 0."""
    examples, length, _ = shape
    queries = torch.arange(length).expand(examples, -1)
    keys = queries - k
    return aimed(shape, torch.where((keys >= 0) & (keys < shape[2]), queries, -1), keys)


def without_dips(values: Tensor, there: Tensor) -> Tensor:
    """Sum over the last dimension without the values far below the others: by more than two standard deviations below their mean.

    there: which of the values [..., n] there are; of fewer than two all count. How QRHead sums calibrated attention over a text.
    """
    n = there.sum(-1, keepdim=True)
    present = values.masked_fill(~there, 0.0)
    mean = present.sum(-1, keepdim=True) / n.clamp(min=1)
    spread = (values - mean).masked_fill(~there, 0.0).square().sum(-1, keepdim=True) / (n - 1).clamp(min=1)
    return present.masked_fill(values < mean - 2 * spread.sqrt(), 0.0).sum(-1)
