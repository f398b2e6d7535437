"""Attention weights of chosen query-key pairs: single entries, columns of the pattern, bands beside its diagonal.

Each is taken from the log-sum-exp where the call has one (weight = exp(scale * q.k - lse), see `attention_call`), so that
only the products asked for are formed; otherwise it is picked out of rows that pass by in blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.model.core.attention_call import AttentionCall

BAND_BLOCK = 64  # queries whose neighbours are scored by one product


def entries(call: AttentionCall, queries: Tensor, keys: Tensor) -> Tensor:
    """Attention from queries[e, i] to keys[e, i], both [example, n]: [example, head, n]; NaN where either is negative."""
    absent = ((queries < 0) | (keys < 0)).unsqueeze(1)
    queries, keys = queries.clamp(min=0), keys.clamp(min=0)
    if call.lse is None:
        return _from_rows(call, queries, keys).masked_fill(absent, torch.nan)
    q = call.q.gather(2, queries[:, None, :, None].expand(-1, call.n_heads, -1, call.q.shape[-1]))
    # Keys are picked per group before they are repeated per head: the copy has n keys, not all.
    k = call.repeat(call.k.gather(2, keys[:, None, :, None].expand(-1, call.k.shape[1], -1, call.k.shape[-1])))
    lse = call.lse.gather(2, queries[:, None].expand(-1, call.n_heads, -1))
    weights = _weights((q * k).sum(-1).float() * call.scale, lse, call.allowed(queries, keys))
    return weights.masked_fill(absent, torch.nan)


def columns(call: AttentionCall, keys: Tensor) -> Tensor:
    """Attention of every query to the keys at keys[e, j] [example, m]: [example, head, query, m]; NaN where negative."""
    absent = (keys < 0)[:, None, None]
    safe = keys.clamp(min=0)
    if call.lse is None:
        picked = call.reduce(lambda rows, _: rows.gather(3, safe[:, None, None].expand(-1, *rows.shape[1:3], -1)))
        return picked.masked_fill(absent, torch.nan)
    k = call.k.gather(2, safe[:, None, :, None].expand(-1, call.k.shape[1], -1, call.k.shape[-1]))
    scores = torch.matmul(call.grouped_queries(), k.unsqueeze(2).transpose(-1, -2)).flatten(1, 2).float() * call.scale
    queries = torch.arange(call.n_queries, device=keys.device)[None, :, None].expand(len(keys), -1, keys.shape[1])
    allowed = call.allowed(queries, safe[:, None].expand(-1, call.n_queries, -1))
    return _weights(scores, call.lse.unsqueeze(-1), allowed).masked_fill(absent, torch.nan)


def band(call: AttentionCall, low: int, high: int) -> tuple[Tensor, Tensor]:
    """(weights [example, head, query, high - low + 1], keys [query, high - low + 1]): attention to the keys low..high back.

    keys may lie outside the sequence; the weights there mean nothing.
    """
    queries = torch.arange(call.n_queries, device=call.q.device)
    keys = queries[:, None] - torch.arange(low, high + 1, device=call.q.device)
    safe = keys.clamp(0, call.n_keys - 1)
    if call.lse is None:
        weights = call.reduce(
            lambda rows, block: rows.gather(3, safe[block][None, None].expand(*rows.shape[:2], -1, -1))
        )
        return weights, keys
    allowed = call.allowed(queries[None, :, None].expand(1, -1, keys.shape[1]), safe[None])
    return _weights(_band_scores(call, low, high), call.lse.unsqueeze(-1), allowed), keys


def _weights(scores: Tensor, lse: Tensor, allowed: Tensor) -> Tensor:
    """exp(scores - lse), zero where the key may not be seen: such scores were not in the sum and may exponentiate to infinity."""
    return torch.where(allowed, (scores - lse).exp(), 0.0)


def _from_rows(call: AttentionCall, queries: Tensor, keys: Tensor) -> Tensor:
    """Entries by way of rows, a block of the asked queries at a time: queries, keys [example, n] -> [example, head, n].

    A block holds rows of the same queries for all examples. Each pair whose query is in the block picks its weight out of
    them; the others pick anything, which `where` throws away.
    """
    result = torch.zeros(len(queries), call.n_heads, queries.shape[1], dtype=torch.float32, device=queries.device)
    wanted = queries.unique()  # ascending, as searchsorted needs it
    for block in wanted.split(call.block_size()):
        rows = call.rows(block).flatten(2)  # [example, head, query in block x key]
        row = torch.searchsorted(block, queries).clamp(max=len(block) - 1)
        here = (block[row] == queries).unsqueeze(1)
        index = (row * call.n_keys + keys).unsqueeze(1).expand(-1, call.n_heads, -1)
        result = torch.where(here, rows.gather(2, index).float(), result)
    return result


def _band_scores(call: AttentionCall, low: int, high: int) -> Tensor:
    """Scaled q.k of each query with its neighbours, [example, head, query, high - low + 1], one small product per block.

    Queries start..stop need the keys start - high .. stop - 1 - low. Keys are padded so that none of these indices is
    negative: key j stands in row j + max(high, 0), and the block's first key is row start + shift. Query start + i then finds
    its key `high` back in column i of the product and its key `low` back in column i + width - 1.
    """
    q, width = call.grouped_queries(), high - low + 1
    if width <= 2:
        return torch.stack([_offset_scores(call, k) for k in range(low, high + 1)], -1)
    keys = torch.nn.functional.pad(call.k, (0, 0, max(high, 0), max(-low, 0))).unsqueeze(2)
    shift = max(high, 0) - high
    blocks = []
    for start in range(0, call.n_queries, BAND_BLOCK):
        stop = min(start + BAND_BLOCK, call.n_queries)
        part = keys[..., start + shift : stop + shift + width - 1, :]
        scores = torch.matmul(q[..., start:stop, :], part.transpose(-1, -2))
        steps = torch.arange(stop - start, device=q.device)[:, None]
        index = steps + torch.arange(width - 1, -1, -1, device=q.device)
        blocks.append(scores.gather(-1, index.expand(*scores.shape[:-2], -1, -1)))
    return torch.cat(blocks, -2).flatten(1, 2).float() * call.scale


def _offset_scores(call: AttentionCall, k: int) -> Tensor:
    """Scaled q.k of each query with the key `k` positions before it, 0 where there is none: [example, head, query]."""
    q, n = call.grouped_queries(), max(0, min(call.n_queries - max(k, 0), call.n_keys + min(k, 0)))
    scores = torch.zeros(*q.shape[:-1], dtype=torch.float32, device=q.device)
    first = max(k, 0)  # the first query that has such a key
    near = call.k[:, :, first - k : first - k + n].unsqueeze(2)
    scores[..., first : first + n] = torch.einsum("egrnd,egond->egrn", q[..., first : first + n, :], near)
    return scores.flatten(1, 2) * call.scale
