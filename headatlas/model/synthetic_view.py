"""A layer made up from an attention pattern, for showing and testing what a detector makes of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.pass_context import PassContext
from headatlas.model.core.view import LayerView


class SyntheticLayer(LayerView):
    """A LayerView whose heads attend as told.

    pattern: [example, head, query, key]. tokens: [example, pos] and copies: [head] bool say what attending writes: in
    favour of the attended token (True) or against it (False). valid: [example, query] bool, False on padding; sources: the
    same of an encoder's tokens [example, key], where the layer is attention from a decoder to an encoder.
    """

    def __init__(
        self,
        pattern: Tensor,
        *,
        valid: Tensor,
        causal: bool = True,
        tokens: Tensor | None = None,
        copies: Tensor | None = None,
        sources: Tensor | None = None,
    ) -> None:
        examples, heads, queries, keys = pattern.shape
        stack = "cross" if sources is not None else "decoder" if causal else "encoder"
        nothing = nn.Identity()  # no module computes this layer: its pattern is given
        sees = causal and stack != "cross"
        layer = AttentionLayer(
            stack, 0, nothing, nothing, None, "synthetic", heads, heads, 1, 1, sees, None, 1.0, pattern_editable=False
        )
        q, k = torch.zeros(examples, heads, queries, 1), torch.zeros(examples, heads, keys, 1)
        known = {stack: valid} if sources is None else {"decoder": valid, "encoder": sources}
        v = torch.ones_like(k)  # all of one size, for what weighs attention by it
        context = PassContext(path="eager", block_bytes=1 << 26, valid=known)
        super().__init__(layer, q, k, v, None, {}, context)
        self._tokens, self._copies = tokens, copies
        self.set_pattern(pattern)

    def ov_logits(self, keys: Tensor, tokens: Tensor, *, paired: bool = False) -> Tensor:
        """+1 or -1 for the token at each key, 0 for all others: [example, head, n, m]; paired: [example, head, n]."""
        if self._tokens is None or self._copies is None:
            raise BadInput("This synthetic layer was not told what it writes.", "Give tokens and copies.")
        same = self._tokens.gather(1, keys.clamp(min=0))[:, :, None] == tokens[:, None, :]
        sign = torch.where(self._copies, 1.0, -1.0)
        logits = same[:, None].float() * sign[None, :, None, None]
        return logits.diagonal(dim1=-2, dim2=-1) if paired else logits
