"""One attention layer as a watcher sees it: attention weights, vectors and writes, computed only when asked for.

Shapes: q [example, head, query, d_head]; k, v [example, group, key, d_head] with `group` the key/value groups (GQA, MQA);
z [example, pos, head, d_value]; attention weights [example, head, query, key].

Entries (chosen query-key pairs) cost next to nothing where the fast kernel also returned each row's log-sum-exp:
weight = exp(q.k * scale - lse). Otherwise rows are recomputed by the model's own eager attention in blocks of queries,
so that memory stays at one block of rows. Both give the same numbers to about 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model.core import dispatch, head_weights
from headatlas.model.core.attention_entries import ChosenWeights

if TYPE_CHECKING:
    from headatlas.model.core.attention_layer import AttentionLayer
    from headatlas.model.core.forward_pass import Pass


STREAMED = 128  # queries a block where rows come from the kernel's log-sum-exp: small blocks stay in the cache


class LayerView(ChosenWeights):
    """One attention layer during one forward pass; valid only inside `watch` (or an edit's call)."""

    def __init__(
        self,
        layer: AttentionLayer,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        kwargs: dict[str, Any],
        current: Pass,
    ) -> None:
        self.attention, self.q, self.k, self.v = layer, q, k, v
        self.z: Tensor = q  # replaced before any watcher runs
        self._mask, self._kwargs, self._pass = mask, kwargs, current
        self._lse: Tensor | None = None
        self._pattern: Tensor | None = None
        self._bands: dict[tuple[int, int], Tensor] = {}
        self._closed = False

    # ---- where we are -------------------------------------------------------------------------------------------
    @property
    def index(self) -> int:
        """Index of the block, from 0."""
        return self.attention.index

    @property
    def stack(self) -> str:
        """decoder, encoder or cross."""
        return self.attention.stack

    @property
    def n_heads(self) -> int:
        """Number of query heads of this layer."""
        return self.attention.n_heads

    def kv_group(self, head: int) -> int:
        """The key/value group that query head `head` reads."""
        return head // (self.n_heads // self.k.shape[1])

    @property
    def n_queries(self) -> int:
        """Number of query positions."""
        return self.q.shape[2]

    @property
    def n_keys(self) -> int:
        """Number of key positions."""
        return self.k.shape[2]

    @property
    def valid_keys(self) -> Tensor:
        """[example, key] bool, False on padding."""
        valid = self._pass.valid.get("encoder" if self.stack == "cross" else self.stack)
        if valid is not None:
            return valid
        return torch.ones(len(self.q), self.n_keys, dtype=torch.bool, device=self.q.device)

    @property
    def valid_queries(self) -> Tensor:
        """[example, query] bool, False on padding."""
        valid = self._pass.valid.get("decoder" if self.stack == "cross" else self.stack)
        if valid is not None:
            return valid
        return torch.ones(len(self.q), self.n_queries, dtype=torch.bool, device=self.q.device)

    @property
    def places(self) -> Tensor:
        """[example, query] how many real tokens come before; -1 on padding."""
        valid = self.valid_queries
        return torch.where(valid, valid.long().cumsum(1) - 1, -1)

    @property
    def query_columns(self) -> Tensor:
        """[example or 1, query] which token of the whole sequence a query is (in cached generation too); -1 for fillers."""
        if self._pass.columns is not None:
            return self._pass.columns
        start = self._pass.start_of(self.stack)
        return torch.arange(start, start + self.n_queries, device=self.q.device)[None]

    @property
    def key_columns(self) -> Tensor:
        """[1, key] which token of the whole sequence a key is; a sliding cache has dropped the oldest."""
        whole = self.stack == "cross" or self._pass.columns is not None
        dropped = 0 if whole else max(0, self._pass.start_of(self.stack) + self.n_queries - self.n_keys)
        return torch.arange(dropped, dropped + self.n_keys, device=self.q.device)[None]

    @property
    def has_sink(self) -> bool:
        """Whether a learned sink takes part of each row, so that its weights sum to less than one."""
        return any(self._kwargs.get(name) is not None for name in ("s_aux", "sinks"))

    @property
    def causal(self) -> bool:
        """Whether queries see only keys at or before themselves."""
        return self.attention.causal

    # ---- the layer's own computation ----------------------------------------------------------------------------
    def compute(self) -> Tensor:
        """The layer's output before the output projection, [example, query, head, d_value], by the model's own code."""
        if self._pass.path == "sdpa":
            fast = self._fast_kernel() if self._pass.fast else None
            if fast is not None:
                output, self._lse = fast
                return output.transpose(1, 2).contiguous()
            return dispatch.delegate("sdpa", self.attention.module)(
                self.attention.module, self.q, self.k, self.v, self._mask, **self._kwargs
            )[0]
        pieces = []
        for positions in self._blocks():
            output, rows = self._eager(positions, self.v)
            pieces.append(output)
            if len(positions) == self.n_queries:
                self._pattern = rows
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)

    def _fast_kernel(self) -> tuple[Tensor, Tensor] | None:
        """Output [example, head, query, d] and log-sum-exp [example, head, query] of the CPU flash kernel, or None.

        The same kernel that scaled_dot_product_attention picks, called by its own name because it also returns the
        log-sum-exp; equality of the outputs is part of the self-check.
        """
        q, k, v = self.q, self.k, self.v
        grad = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        plain = not any(self._kwargs.get(name) is not None for name in ("softcap", "position_bias", "s_aux", "sinks"))
        if q.device.type != "cpu" or grad or not plain or q.shape[2] == 1 or q.shape[-1] != v.shape[-1]:
            return None
        causal = self._mask is None and self._is_causal_call()
        if causal and q.shape[2] != k.shape[2]:
            return None
        mask = self._additive(self._mask, q.dtype) if self._mask is not None else None
        if mask is not None and k.shape[1] != q.shape[1]:
            k, v = self.repeat(k), self.repeat(v)
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=mask, scale=self._kwargs.get("scaling")
        )
        return output, lse

    def _is_causal_call(self) -> bool:
        given = self._kwargs.get("is_causal")
        return (
            bool(given if given is not None else getattr(self.attention.module, "is_causal", True))
            and self.q.shape[2] > 1
        )

    @staticmethod
    def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
        if mask.dtype != torch.bool:
            return mask
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)

    def repeat(self, x: Tensor) -> Tensor:
        """Keys or values per query head: [example, group, key, d] -> [example, head, key, d]."""
        return x if x.shape[1] == self.n_heads else x.repeat_interleave(self.n_heads // x.shape[1], dim=1)

    def from_pattern(self, pattern: Tensor) -> Tensor:
        """z formed from an attention pattern, [example, query, head, d_value]."""
        return torch.matmul(pattern, self.repeat(self.v)).transpose(1, 2).contiguous()

    def set_pattern(self, pattern: Tensor) -> None:
        """Make an edited pattern the one that watchers see."""
        self._pattern, self._lse, self._bands = pattern, None, {}

    def close(self) -> None:
        """End of the layer: nothing may be asked any more."""
        self._closed = True
        self._pattern = self._lse = None
        self._bands = {}

    # ---- attention weights --------------------------------------------------------------------------------------
    def _eager(self, positions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own eager attention for the queries at `positions` [n]."""
        if self._closed:
            raise BadInput("A LayerView was used after its layer had ended.", "Take what you need inside `watch`.")
        eager = dispatch.eager_of(self.attention.module)
        if eager is None:
            raise UnsupportedModel(
                f"{type(self.attention.module).__name__} has no eager attention, so its pattern cannot be read."
            )
        kwargs = dict(self._kwargs)
        bias = kwargs.get("position_bias")
        if bias is not None and bias.shape[-2] == self.n_queries:
            kwargs["position_bias"] = bias[..., positions, :]
        output, rows = eager(
            self.attention.module, self.q[:, :, positions], self.k, values, self._mask_rows(positions), **kwargs
        )
        if rows is None:
            raise UnsupportedModel(f"{type(self.attention.module).__name__} does not give its attention weights.")
        return output, rows

    def _mask_rows(self, positions: Tensor) -> Tensor | None:
        if self._mask is not None:
            rows = self._mask[..., positions, :] if self._mask.shape[-2] == self.n_queries else self._mask
            return self._additive(rows, self.q.dtype)
        if self._pass.path == "sdpa" and self._is_causal_call():
            seen = torch.arange(self.n_keys, device=self.q.device) <= positions[:, None]
            return self._additive(seen[None, None], self.q.dtype)
        return None

    def _block_size(self) -> int:
        """How many rows of attention may exist at once."""
        row = len(self.q) * self.n_heads * self.n_keys * 4
        return max(1, min(self.n_queries, self._pass.block_bytes // max(row, 1)))

    def _blocks(self) -> Iterator[Tensor]:
        yield from torch.arange(self.n_queries, device=self.q.device).split(self._block_size())

    def rows(self, positions: Tensor) -> Tensor:
        """Attention weights of the queries at `positions` ([n] shared, or [example, n]): [example, head, n, key]."""
        if self._pattern is not None:
            if positions.ndim == 1:
                return self._pattern[:, :, positions]
            index = positions[:, None, :, None].expand(-1, self.n_heads, -1, self.n_keys)
            return self._pattern.gather(2, index)
        if positions.ndim == 1:
            return self._eager(positions, self.v[..., :1])[1]
        parts = [self._one(example).rows(row)[0] for example, row in enumerate(positions)]
        return torch.stack(parts)

    def _one(self, example: int) -> LayerView:
        """The same layer for one example of the batch."""
        pick = slice(example, example + 1)
        mask = self._mask[pick] if self._mask is not None and len(self._mask) == len(self.q) else self._mask
        kwargs = {
            name: value[pick] if isinstance(value, Tensor) and value.ndim == 4 and len(value) == len(self.q) else value
            for name, value in self._kwargs.items()
        }
        return LayerView(self.attention, self.q[pick], self.k[pick], self.v[pick], mask, kwargs, self._pass)

    @property
    def pattern(self) -> Tensor:
        """All attention weights, [example, head, query, key]; for short inputs, it grows with the square of the length."""
        if self._pattern is None:
            self._pattern = self._eager(torch.arange(self.n_queries, device=self.q.device), self.v[..., :1])[1]
        return self._pattern

    def reduce(self, fn: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Stream all rows in blocks of queries: fn(rows [example, head, n, key], positions [n]) -> [example, head, n, ...].

        The results are joined along the query axis; no more than one block of rows exists at a time. Where every query
        reads backwards, the keys after the block's last query, which get nothing, may be left out of the rows.
        """
        if self._pattern is not None:
            return fn(self._pattern, torch.arange(self.n_queries, device=self.q.device))
        if self._lse is None:
            return torch.cat([fn(self._eager(block, self.v[..., :1])[1], block) for block in self._blocks()], 2)
        return torch.cat([fn(rows, block) for rows, block in self._streamed(self._lse)], 2)

    def _streamed(self, lse: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of rows from the kernel's log-sum-exp."""
        q, k = self._grouped() * self._scale, self.k.transpose(-1, -2)
        backwards = self._mask is None and self._is_causal_call()
        size = min(self._block_size(), STREAMED)
        for block in torch.arange(self.n_queries, device=q.device).split(size):
            start, n = int(block[0]), len(block)
            seen = start + n if backwards else self.n_keys
            scores = torch.matmul(q[..., start : start + n, :].flatten(2, 3), k[..., :seen]).float()
            scores = scores.unflatten(2, (-1, n)).flatten(1, 2)
            rows = scores.sub_(lse[:, :, start : start + n, None]).exp_()
            if backwards:
                rows[..., start:].tril_()
            else:
                keys = torch.arange(self.n_keys, device=q.device).expand(n, -1)
                rows.masked_fill_(~self._allowed(block[None, :, None].expand(1, -1, self.n_keys), keys[None]), 0.0)
            yield rows, block

    # ---- what heads write ---------------------------------------------------------------------------------------
    @property
    def W_O(self) -> Tensor:
        """Output weights per head, [head, d_value, d_model]."""
        return self.attention.output_weight()

    @property
    def W_Q(self) -> Tensor:
        """Query weights per head, [head, d_model, d_head]; see `headatlas.model.core.head_weights` for biases and what is exact."""
        return head_weights.of_site(self.attention).W_Q

    @property
    def W_K(self) -> Tensor:
        """Key weights per key/value group, [group, d_model, d_head]."""
        return head_weights.of_site(self.attention).W_K

    @property
    def W_V(self) -> Tensor:
        """Value weights per key/value group, [group, d_model, d_value]."""
        return head_weights.of_site(self.attention).W_V

    def writes(self, positions: Tensor | None = None) -> Tensor:
        """What each head adds to the attention block's output: z W_O, [example, n, head, d_model] (bias left out).

        positions [n] or [example, n]; None: all. Post-norms are not applied (see `methods`).
        """
        z = self.z
        if positions is not None:
            if positions.ndim == 1:
                z = z[:, positions]
            else:
                z = z.gather(1, positions[:, :, None, None].expand(-1, -1, *z.shape[2:]))
        return torch.einsum("enhd,hdm->enhm", z, self.W_O.to(z.dtype))

    def ov_logits(self, keys: Tensor, tokens: Tensor, *, paired: bool = False) -> Tensor:
        """What attending to key positions would write in favour of tokens, by the OV circuit and the unembedding alone.

        keys [example, n], tokens [example, m] -> [example, head, n, m]; paired (n = m): each key's own token, [example, head,
        n]. v at the key through W_O, the post-attention and final norms' gains and W_U. The norms' data-dependent scales are
        positive and the same for all tokens, and are left out: compare tokens, not sizes. Elhage et al. 2021, the full OV
        circuit.
        """
        v = self.v.gather(2, keys.clamp(min=0)[:, None, :, None].expand(-1, self.v.shape[1], -1, self.v.shape[-1]))
        written = torch.einsum("ehnd,hdm->ehnm", self.repeat(v).float(), self.W_O.float())
        if self.attention.post_gain is not None:
            written = written * self.attention.post_gain
        formula = "ehnd,end->ehn" if paired else "ehnd,emd->ehnm"
        return torch.einsum(formula, *self._pass.unembedding.directions(written, tokens))
