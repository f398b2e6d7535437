"""Each head's own query, key, value and output matrices, cut out of however a model stores them.

Read through the columns that were traced on load (`AttentionLayer.qkv`), so fused, interleaved, grouped and quantised weights need no special
cases. Everything returned is a copy; nothing in the model is folded or changed. Constant scales that a model puts on its
queries or keys (BART's 1/sqrt(d), a rotary embedding's attention factor) are part of the matrices; what depends on the
position or the token (rotary embeddings, norms of queries and keys) is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.model.core.attention_layer import AttentionLayer, ColumnSource, QKVColumns
from headatlas.model.core.linear_and_norm import matrix, norm_gain, norm_shift, normalises, offset


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """The weights of one attention layer, head by head.

    W_Q [head, d_model, d_head], W_K [group, d_model, d_head], W_V [group, d_model, d_value], W_O [head, d_value, d_model];
    b_Q [head, d_head], b_K [group, d_head], b_V [group, d_value] or None. groups: number of key/value groups; head h reads
    group h // (n_heads // groups). exact: q = x W_Q + b_Q for the x that the projection reads; False where the model clips
    large values (OLMo), or a norm lies between two factors of a low-rank product (MLA), whose scale, one positive number a
    token, is left out.
    """

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    b_Q: Tensor | None
    b_K: Tensor | None
    b_V: Tensor | None
    groups: int
    exact: bool

    def per_head(self, x: Tensor) -> Tensor:
        """W_K, W_V, b_K or b_V [group, ...] repeated for the query heads: [head, ...]."""
        return x.repeat_interleave(len(self.W_Q) // self.groups, 0)


@dataclass(frozen=True)
class _Part:
    """An array's weights [..., d_model, d] and biases [..., d]."""

    weight: Tensor
    bias: Tensor | None
    exact: bool


def of_layer(layer: AttentionLayer, *, fold: bool = False) -> HeadWeights:
    """The weights of an attention layer; fold: as `model_weights.folded` has them. Raises UnsupportedModel."""
    if layer.qkv is None:
        raise UnsupportedModel(
            f"The query, key and value weights of {layer.name} ({type(layer.module).__name__}) cannot be told apart: what "
            "arrives at its attention is no selection of its projections' outputs.",
            "Use q, k and v of a LayerView instead.",
        )
    with torch.no_grad():
        q, k, v = (_part(origin, layer, fold) for origin in (layer.qkv.q, layer.qkv.k, layer.qkv.v))
        return HeadWeights(
            q.weight, k.weight, v.weight, layer.output_weight().detach().clone(), q.bias, k.bias, v.bias,
            len(k.weight), q.exact and k.exact and v.exact,
        )  # fmt: skip


def _part(origin: ColumnSource, layer: AttentionLayer, fold: bool) -> _Part:
    """Weights of an array from the columns that it comes from."""
    assert layer.qkv is not None
    maps = [_map(projection, layer, layer.qkv, fold) for projection in origin.projections]
    widths = {part.weight.shape[0] for part in maps}
    if len(widths) > 1:
        raise UnsupportedModel(f"{layer.name} reads inputs of different widths ({sorted(widths)}).")
    weight = maps[0].weight.new_empty(widths.pop(), *origin.column.shape)
    bias = maps[0].weight.new_zeros(origin.column.shape)
    for index, part in enumerate(maps):
        here = origin.which == index
        weight[:, here] = part.weight[:, origin.column[here]]
        if part.bias is not None:
            bias[here] = part.bias[origin.column[here]].to(bias.dtype)
    has_bias = any(part.bias is not None for part in maps)
    factor = origin.factor.to(weight.dtype)
    return _Part(
        (weight * factor).movedim(0, -2),
        bias * factor if has_bias else None,
        all(part.exact for part in maps) and not origin.clipped,
    )


def _map(projection: nn.Module, layer: AttentionLayer, qkv: QKVColumns, fold: bool) -> _Part:
    """A projection as a map from what the attention module reads; a low-rank one multiplied out."""
    weight, bias = matrix(projection).detach(), offset(projection)
    source = qkv.inputs[projection]
    if source.origin is None:
        if not fold:
            return _Part(weight, bias, True)
        if source.norm is None:
            raise UnsupportedModel(
                f"No norm hands its output straight to the projections of {layer.name}, so there is no gain to fold.",
                "Use weights_of.",
            )
        return _Part(*_fold_norm(weight, bias, source.norm), True)
    inner = _part(source.origin, layer, fold)
    first, between = inner.weight, inner.bias
    if source.norm is not None:
        second, bias = _fold_norm(weight, bias, source.norm)
    else:
        second = weight
    if between is not None:
        bias = between @ second if bias is None else between @ second + bias
    return _Part(first @ second, bias, inner.exact and source.norm is None)


def _fold_norm(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor | None]:
    width = weight.shape[0]
    if not normalises(norm, width):
        raise UnsupportedModel(
            f"{type(norm).__name__} does not normalise, so its gain cannot be folded for inputs of variance 1.",
            "Use weights_of.",
        )
    gain, centers = norm_gain(norm, width)
    return fold_gain(weight, bias, gain, norm_shift(norm, width), centers)


def fold_gain(
    weight: Tensor, bias: Tensor | None, gain: Tensor, shift: Tensor | None, centers: bool
) -> tuple[Tensor, Tensor | None]:
    """New weight [in, out] and bias [out] that do what norm and map did, on inputs of variance 1."""
    dtype = weight.dtype
    scaled = weight.float() * gain[:, None]
    if centers:
        scaled = scaled - scaled.mean(0, keepdim=True)
    if shift is not None and bool((shift != 0).any()):
        moved = shift @ weight.float()
        bias = (moved if bias is None else moved + bias.float()).to(dtype)
    return scaled.to(dtype), bias
