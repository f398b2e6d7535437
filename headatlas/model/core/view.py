"""One attention layer as a watcher sees it: attention weights, vectors and writes, computed only when asked for.

What a view is made of lies in `attention_call` (the layer's own computation, rows of attention) and `attention_entries`
(weights of chosen pairs); here are the names that detectors, edits and methods use, with padding and token positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headatlas.errors import UnsupportedModel
from headatlas.model.core import attention_entries, head_weights
from headatlas.model.core.attention_call import AttentionCall
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.pass_context import PassContext
from headatlas.renamed import Renamed


class LayerView(AttentionCall):
    """One attention layer during one forward pass; valid only inside `watch` (or an edit's call).

    q [example, head, query, d_head]; k, v [example, group, key, d]; z [example, pos, head, d_value], the input of the output
    projection. attention: the AttentionLayer.
    """

    layer, site = Renamed("index"), Renamed("attention")
    places, query_columns, key_columns = Renamed("text_positions"), Renamed("query_positions"), Renamed("key_positions")

    def __init__(
        self,
        attention: AttentionLayer,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        kwargs: dict[str, Any],
        context: PassContext,
    ) -> None:
        super().__init__(attention, q, k, v, mask, kwargs, context)
        self.z: Tensor = q  # replaced before any watcher runs
        self._bands: dict[tuple[int, int], Tensor] = {}
        self._end = context.end_of(attention.stack, q.shape[2])  # read here: the context answers the thread that calls

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
    def causal(self) -> bool:
        """Whether queries see only keys at or before themselves."""
        return self.attention.causal

    @property
    def has_sink(self) -> bool:
        """Whether a learned sink takes part of each row, so that its weights sum to less than one."""
        given = any(self.kwargs.get(name) is not None for name in ("s_aux", "sinks"))
        return given or self.attention.sink_factor

    def kv_group(self, head: int) -> int:
        """The key/value group that query head `head` reads."""
        return head // (self.n_heads // self.k.shape[1])

    @property
    def valid_keys(self) -> Tensor:
        """[example, key] bool, False on padding."""
        return self._valid("encoder" if self.stack == "cross" else self.stack, self.n_keys)

    @property
    def valid_queries(self) -> Tensor:
        """[example, query] bool, False on padding."""
        return self._valid("decoder" if self.stack == "cross" else self.stack, self.n_queries)

    def _valid(self, stack: str, n: int) -> Tensor:
        valid = self.context.valid.get(stack)
        if valid is not None:
            return valid
        return torch.ones(len(self.q), n, dtype=torch.bool, device=self.q.device)

    @property
    def text_positions(self) -> Tensor:
        """[example, query] how many real tokens come before; -1 on padding."""
        valid = self.valid_queries
        return torch.where(valid, valid.long().cumsum(1) - 1, -1)

    @property
    def query_positions(self) -> Tensor:
        """[example or 1, query] which token of the whole sequence a query is (in cached generation too); -1 for fillers."""
        if self.context.query_positions is not None:
            return self.context.query_positions
        return torch.arange(self._end - self.n_queries, self._end, device=self.q.device)[None]

    @property
    def key_positions(self) -> Tensor:
        """[1, key] which token of the whole sequence a key is; a sliding cache has dropped the oldest."""
        whole = self.stack == "cross" or self.context.query_positions is not None
        dropped = 0 if whole else max(0, self._end - self.n_keys)
        return torch.arange(dropped, dropped + self.n_keys, device=self.q.device)[None]

    # ---- attention weights; also `rows`, `pattern` and `reduce` -------------------------------------------------
    def entries(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Attention from queries[e, i] to keys[e, i], both [example, n]: [example, head, n]; NaN where either is negative."""
        return attention_entries.entries(self, queries, keys)

    def columns(self, keys: Tensor) -> Tensor:
        """Attention of every query to the keys at keys[e, j] [example, m]: [example, head, query, m]; NaN where negative."""
        return attention_entries.columns(self, keys)

    def offset(self, k: int) -> Tensor:
        """Attention from each query to the key `k` positions before it: [example, head, query]; NaN where there is none."""
        return self.band(k, k)[..., 0]

    def band(self, low: int, high: int) -> Tensor:
        """Attention to the keys low..high positions back (negative: ahead): [example, head, query, high - low + 1].

        NaN where query or key is padding or does not exist.
        """
        for (lo, hi), known in self._bands.items():
            if lo <= low and high <= hi:
                return known[..., low - lo : high - lo + 1]
        weights, keys = attention_entries.band(self, low, high)
        inside = (keys >= 0) & (keys < self.n_keys)
        present = inside & self.valid_queries[:, :, None] & self.valid_keys[:, keys.clamp(0, self.n_keys - 1)]
        weights = weights.masked_fill(~present.unsqueeze(1), torch.nan)
        self._bands[low, high] = weights
        return self.shown(f"band({low}, {high})", weights)

    def set_pattern(self, pattern: Tensor) -> None:
        """Make an edited pattern the one that watchers see."""
        super().set_pattern(pattern)
        self._bands = {}

    def close(self) -> None:
        """End of the layer: nothing may be asked any more, and nothing large is held."""
        super().close()
        self._bands = {}

    # ---- what heads write ---------------------------------------------------------------------------------------
    @property
    def W_O(self) -> Tensor:
        """Output weights per head, [head, d_value, d_model]."""
        return self.attention.output_weight()

    @property
    def W_Q(self) -> Tensor:
        """Query weights per head, [head, d_model, d_head]; see `headatlas.model.core.head_weights` for biases and what is exact."""
        return head_weights.of_layer(self.attention).W_Q

    @property
    def W_K(self) -> Tensor:
        """Key weights per key/value group, [group, d_model, d_head]."""
        return head_weights.of_layer(self.attention).W_K

    @property
    def W_V(self) -> Tensor:
        """Value weights per key/value group, [group, d_model, d_value]."""
        return head_weights.of_layer(self.attention).W_V

    def writes(self, positions: Tensor | None = None) -> Tensor:
        """What each head adds to the attention block's output: z W_O, [example, n, head, d_model] (bias left out).

        positions [n] or [example, n]; None: all. Post-norms are not applied (see `methods`). Raises UnsupportedModel where the
        projection is not linear.
        """
        self.attention.require_linear()
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
        circuit. Raises UnsupportedModel for a model without a linear read-out or whose writes enter the stream indirectly.
        """
        unembedding = self.context.unembedding
        if unembedding is None:
            raise UnsupportedModel(
                "The model has no linear read-out from hidden states to tokens, so heads write in favour of none.",
                "Load it with its language-model head.",
            )
        self.attention.require_direct()
        v = self.v.gather(2, keys.clamp(min=0)[:, None, :, None].expand(-1, self.v.shape[1], -1, self.v.shape[-1]))
        written = torch.einsum("ehnd,hdm->ehnm", self.repeat(v).float(), self.W_O.float())
        if (gain := self.attention.post_gain) is not None:
            written = written * gain
        formula = "ehnd,end->ehn" if paired else "ehnd,emd->ehnm"
        return torch.einsum(formula, *unembedding.directions(written, tokens))
