"""Attention weights of chosen query-key pairs: what a layer's view gives without whole rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from headatlas.model.core.forward_pass import Pass


class ChosenWeights:
    """Entries, columns and bands of a layer's attention; from the kernel's log-sum-exp where there is one, else from rows."""

    q: Tensor
    k: Tensor
    _mask: Tensor | None
    _kwargs: dict[str, Any]
    _pass: Pass
    _lse: Tensor | None
    _bands: dict[tuple[int, int], Tensor]

    @property
    @abstractmethod
    def n_heads(self) -> int: ...  # noqa: D102

    @property
    @abstractmethod
    def n_queries(self) -> int: ...  # noqa: D102

    @property
    @abstractmethod
    def n_keys(self) -> int: ...  # noqa: D102

    @property
    @abstractmethod
    def valid_queries(self) -> Tensor: ...  # noqa: D102

    @property
    @abstractmethod
    def valid_keys(self) -> Tensor: ...  # noqa: D102

    @abstractmethod
    def rows(self, positions: Tensor) -> Tensor:
        """See LayerView.rows."""

    @abstractmethod
    def reduce(self, fn: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """See LayerView.reduce."""

    @abstractmethod
    def repeat(self, x: Tensor) -> Tensor:
        """See LayerView.repeat."""

    @abstractmethod
    def _is_causal_call(self) -> bool: ...

    @abstractmethod
    def _block_size(self) -> int: ...

    def _weights(self, scores: Tensor, lse: Tensor, allowed: Tensor) -> Tensor:
        return torch.where(allowed, (scores - lse).exp(), 0.0)

    @property
    def _scale(self) -> float:
        scaling = self._kwargs.get("scaling")
        return float(scaling) if scaling is not None else self.q.shape[-1] ** -0.5

    def _grouped(self) -> Tensor:
        """Queries as [example, group, head in group, query, d]."""
        return self.q.unflatten(1, (self.k.shape[1], -1))

    def _allowed(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Whether query i may see key j, for index tensors [example or 1, ...] of one shape; [example or 1, 1 or head, ...]."""
        if self._mask is None:
            allowed = keys <= queries if self._is_causal_call() else torch.ones_like(keys, dtype=torch.bool)
            return allowed.unsqueeze(1)
        mask = self._mask.expand(max(len(queries), len(self._mask)), *self._mask.shape[1:])
        example = torch.arange(len(mask), device=mask.device).view(-1, *[1] * (queries.ndim - 1))
        rows = queries if mask.shape[2] == self.n_queries else torch.zeros_like(queries)
        picked = mask[example, :, rows, keys].movedim(-1, 1)
        return picked if picked.dtype == torch.bool else picked > torch.finfo(picked.dtype).min / 2

    def entries(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Attention from queries[e, i] to keys[e, i], both [example, n]: [example, head, n]; NaN where either is negative."""
        absent = ((queries < 0) | (keys < 0)).unsqueeze(1)
        queries, keys = queries.clamp(min=0), keys.clamp(min=0)
        if self._lse is None:
            return self._from_rows(queries, keys).masked_fill(absent, torch.nan)
        q = self.q.gather(2, queries[:, None, :, None].expand(-1, self.n_heads, -1, self.q.shape[-1]))
        k = self.repeat(self.k.gather(2, keys[:, None, :, None].expand(-1, self.k.shape[1], -1, self.k.shape[-1])))
        lse = self._lse.gather(2, queries[:, None].expand(-1, self.n_heads, -1))
        weights = self._weights((q * k).sum(-1).float() * self._scale, lse, self._allowed(queries, keys))
        return weights.masked_fill(absent, torch.nan)

    def _from_rows(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Entries by the row path, a block of the asked queries at a time: queries [example, n], keys [example, n] -> [example, head, n]."""
        result = torch.zeros(len(queries), self.n_heads, queries.shape[1], device=queries.device)
        wanted = queries.unique()
        for block in wanted.split(self._block_size()):
            rows = self.rows(block).flatten(2)  # [example, head, query in block x key]
            place = torch.searchsorted(block, queries).clamp(max=len(block) - 1)
            here = (block[place] == queries).unsqueeze(1)
            index = (place * self.n_keys + keys).unsqueeze(1).expand(-1, self.n_heads, -1)
            result = torch.where(here, rows.gather(2, index).float(), result)
        return result

    def columns(self, keys: Tensor) -> Tensor:
        """Attention of every query to the keys at keys[e, j] [example, m]: [example, head, query, m]; NaN where negative."""
        absent = (keys < 0)[:, None, None]
        safe = keys.clamp(min=0)
        if self._lse is None:
            picked = self.reduce(lambda rows, _: rows.gather(3, safe[:, None, None].expand(-1, *rows.shape[1:3], -1)))
            return picked.masked_fill(absent, torch.nan)
        k = self.k.gather(2, safe[:, None, :, None].expand(-1, self.k.shape[1], -1, self.k.shape[-1]))
        scores = torch.matmul(self._grouped(), k.unsqueeze(2).transpose(-1, -2)).flatten(1, 2).float() * self._scale
        queries = torch.arange(self.n_queries, device=keys.device)[None, :, None].expand(len(keys), -1, keys.shape[1])
        allowed = self._allowed(queries, safe[:, None].expand(-1, self.n_queries, -1))
        return self._weights(scores, self._lse.unsqueeze(-1), allowed).masked_fill(absent, torch.nan)

    def offset(self, k: int) -> Tensor:
        """Attention from each query to the key `k` places before it: [example, head, query]; NaN where there is none."""
        return self.band(k, k)[..., 0]

    def band(self, low: int, high: int) -> Tensor:
        """Attention to the keys low..high places back (negative: ahead): [example, head, query, high - low + 1]; NaN outside.

        NaN where query or key is padding or does not exist.
        """
        for (lo, hi), known in self._bands.items():
            if lo <= low and high <= hi:
                return known[..., low - lo : high - lo + 1]
        queries = torch.arange(self.n_queries, device=self.q.device)
        keys = queries[:, None] - torch.arange(low, high + 1, device=self.q.device)
        inside = (keys >= 0) & (keys < self.n_keys)
        safe = keys.clamp(0, self.n_keys - 1)
        if self._lse is None:
            weights = self.reduce(
                lambda rows, block: rows.gather(3, safe[block][None, None].expand(*rows.shape[:2], -1, -1))
            )
        else:
            allowed = self._allowed(queries[None, :, None].expand(1, -1, keys.shape[1]), safe[None])
            weights = self._weights(self._band_scores(low, high), self._lse.unsqueeze(-1), allowed)
        present = inside & self.valid_queries[:, :, None] & self.valid_keys[:, safe]
        weights = weights.masked_fill(~present.unsqueeze(1), torch.nan)
        self._bands[low, high] = weights
        return weights

    def _band_scores(self, low: int, high: int, size: int = 64) -> Tensor:
        """Scaled q.k of each query with its neighbours, by one small product per block of queries."""
        q, width = self._grouped(), high - low + 1
        if width <= 2:
            return torch.stack([self._offset_scores(k) for k in range(low, high + 1)], -1)
        keys = torch.nn.functional.pad(self.k, (0, 0, max(high, 0), max(-low, 0))).unsqueeze(2)
        shift = max(high, 0) - high  # column of the key `high` places before query 0
        blocks = []
        for start in range(0, self.n_queries, size):
            stop = min(start + size, self.n_queries)
            part = keys[..., start + shift : stop + shift + width - 1, :]
            scores = torch.matmul(q[..., start:stop, :], part.transpose(-1, -2))
            steps = torch.arange(stop - start, device=q.device)[:, None]
            index = steps + torch.arange(width - 1, -1, -1, device=q.device)
            blocks.append(scores.gather(-1, index.expand(*scores.shape[:-2], -1, -1)))
        return torch.cat(blocks, -2).flatten(1, 2).float() * self._scale

    def _offset_scores(self, k: int) -> Tensor:
        """Scaled q.k of each query with the key `k` places before it, 0 where there is none: [example, head, query]."""
        q, n = self._grouped(), max(0, min(self.n_queries - max(k, 0), self.n_keys + min(k, 0)))
        scores = torch.zeros(*q.shape[:-1], device=q.device)
        first = max(k, 0)
        near = self.k[:, :, first - k : first - k + n].unsqueeze(2)
        scores[..., first : first + n] = torch.einsum("egrnd,egond->egrn", q[..., first : first + n, :], near)
        return scores.flatten(1, 2) * self._scale
