"""A head's two circuits read off the weights: what it looks for (QK) and what it writes when it looks there (OV).

Vectors are those of the residual stream scaled to variance 1, as a head's norm hands them on: the norm's gain, shift and
centring are multiplied into copies of the weights, never into the model. What a post-norm or a factor does to a head's
write is in the OV circuit; what depends on the input (a norm's scale, the softmax, a cap, norms of queries and keys) is not.
Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headatlas.edits import OnHeads, collect
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.head_weights import HeadWeights, of_layer
from headatlas.model.core.linear_and_norm import is_norm, norm_gain
from headatlas.model.runs.token_embedding import embedded, keys_of, queries_of, turned
from headatlas.model.structure.model_weights import folded_unembedding, weights_of
from headatlas.ops.weights import CHUNK, Factored, top
from headatlas.task import Batch


@dataclass(frozen=True, eq=False)
class Circuits:
    """The circuits of every head of one layer, in float32, as products of thin factors with leading dimension head.

    qk: [head, d_model of the query, d_model of the key], query times key before the attention's own scale.
    ov: [head, d_model read, d_model written]. value_bias [head, d_model]: what a head writes whatever it attends to, or None.
    offset: how many tokens back the key stands for `qk`; None: positions left out. centred: whether the norm centres.
    scaled: whether a norm scales what the head reads. exact: False where the weights leave something out (see HeadWeights).
    normed: whether the model norms its queries and keys, which `qk`, a plain product of weights, then leaves out.
    """

    heads: tuple[HeadId, ...]
    qk: Factored
    ov: Factored
    value_bias: Tensor | None
    offset: int | None
    centred: bool
    scaled: bool
    exact: bool
    normed: bool

    def read(self, x: Tensor) -> Tensor:
        """Vectors of the residual stream [..., d_model] as this layer's heads read them: scaled to variance 1."""
        if not self.scaled:
            return x
        centred = x - x.mean(-1, keepdim=True) if self.centred else x
        return x / _size(centred)

    def written(self, x: Tensor) -> Tensor:
        """What each head writes when it attends to a stream x [token, d_model] alone: [head, token, d_model]."""
        found = (self.read(x) @ self.ov.left) @ self.ov.right
        return found if self.value_bias is None else found + self.value_bias[:, None]

    def only(self, heads: Sequence[HeadId]) -> tuple[Factored, Factored]:
        """(QK, OV) of some heads of the layer."""
        index = torch.tensor([self.heads.index(head) for head in heads])
        return (
            Factored(self.qk.left[index], self.qk.right[index]),
            Factored(self.ov.left[index], self.ov.right[index]),
        )


def circuits_of(model: Model, layer: int, stack: str = "decoder", *, offset: int | None = None) -> Circuits:
    """The circuits of an attention layer.

    offset: how many tokens back the key stands, for models that turn queries and keys by position (rotary embeddings); None
    leaves positions out, which is the same as 0. Raises BadInput for a layer that does not exist or an offset where
    nothing is turned, UnsupportedModel where weights cannot be read or writes enter the stream indirectly.
    """
    attention = model.layer(layer, stack)
    attention.require_direct()
    weights, scaled, centred = _read(model, attention)
    w_q, w_k, w_v = weights.W_Q.float(), weights.per_head(weights.W_K).float(), weights.per_head(weights.W_V).float()
    w_o = weights.W_O.float() * attention.multiplier
    if (gain := attention.post_gain) is not None:
        w_o = w_o * gain
    if offset is not None:
        turn = turned(model, attention, offset)
        if offset and torch.allclose(turn, torch.eye(turn.shape[-1], device=turn.device), atol=1e-6):
            raise _unturned(model, attention)
        w_q = w_q @ turn
    bias = None
    if weights.b_V is not None:
        bias = (weights.per_head(weights.b_V).float()[:, None] @ w_o)[:, 0]
    normed = any(is_norm(part) for part in attention.module.modules())
    return Circuits(
        attention.heads, Factored(w_q, w_k.mT), Factored(w_v, w_o), bias, offset, centred, scaled, weights.exact, normed
    )


def _unturned(model: Model, layer: AttentionLayer) -> BadInput:
    return BadInput(
        f"Layer {layer.index} of {model.name} does not turn its queries by position (no rotary embedding), so an offset says "
        "nothing.",
        "Leave the offset out: contents are compared alike at any distance.",
    )


def _read(model: Model, layer: AttentionLayer) -> tuple[HeadWeights, bool, bool]:
    """(weights, whether a norm scales what they read, whether it centres). Raises UnsupportedModel."""
    inputs = None if layer.qkv is None else layer.qkv.inputs[layer.qkv.v.projections[0]]
    if inputs is None or inputs.norm is not None or inputs.origin is not None:
        weights = of_layer(layer, fold=True)
        assert layer.qkv is not None
        norm = next(found.norm for found in layer.qkv.inputs.values() if found.origin is None and found.norm)
        return weights, True, norm_gain(norm, weights.W_V.shape[1])[1]
    weights = weights_of(model, layer.index, layer.stack)
    if not _reads_the_stream(model, layer, weights):
        raise UnsupportedModel(
            f"What the projections of {layer.name} read is neither the residual stream nor a norm of it.",
            "Read plain weights with headatlas.model.structure.model_weights.weights_of.",
        )
    return weights, False, False


def _reads_the_stream(model: Model, layer: AttentionLayer, weights: HeadWeights) -> bool:
    """Whether values are those of the bare residual stream (OLMo 2, which has its norms behind attention), by one short run."""
    if layer.block is None:
        return False
    tokens = torch.linspace(0, model.vocabulary_size - 1, 8).long()[None]
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    place = (layer.stack, layer.index)
    stream = collect(model, batch, OnHeads([place], component="residual"))[place][:, :, 0].float()
    real = collect(model, batch, OnHeads(layer.heads, component="v", group=True))[place].float()
    guess = torch.einsum("etm,gmd->etgd", stream, weights.W_V.float())
    guess = guess if weights.b_V is None else guess + weights.b_V.float()
    return bool((guess - real).norm() <= 20 * torch.finfo(model.dtype).eps * real.norm())


def token_vectors(model: Model, tokens: Tensor, form: str = "effective") -> Tensor:
    """[token, d_model] what stands for tokens at the bottom of the stream; see `headatlas.model.runs.token_embedding.embedded`."""
    size = model.vocabulary_size
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
        raise BadInput(f"Token ids must lie in 0 to {size - 1}; got {int(tokens.min())} to {int(tokens.max())}.")
    return embedded(model, tokens, form)


def readout(model: Model) -> tuple[Tensor, Tensor | None]:
    """(W_U [d_model, token], bias [token] or None) in float32 for vectors scaled to variance 1. Raises UnsupportedModel."""
    weight, bias = folded_unembedding(model)
    return weight.float(), None if bias is None else bias.float()


def to_logits(model: Model, written: Tensor) -> Tensor:
    """What heads write [..., d_model] scaled as the final norm would, were it alone in the stream."""
    found = model.unembedding
    if found is None:
        return written
    centred = written - written.mean(-1, keepdim=True) if found.centers else written
    return written / _size(centred)


def _size(x: Tensor) -> Tensor:
    """Root mean square over the last dimension, kept; above zero, so that zeros stay zeros, as they do in a norm."""
    return x.square().mean(-1, keepdim=True).sqrt().clamp(min=torch.finfo(x.dtype).tiny)


@dataclass(frozen=True, eq=False)
class TopTokens:
    """tokens [row, k] ids with their scores [row, k], highest first."""

    tokens: Tensor
    scores: Tensor


def writes_of(
    model: Model, head: HeadId, tokens: Tensor, k: int = 10, *, form: str = "effective", among: Tensor | None = None
) -> tuple[TopTokens, TopTokens]:
    """Which tokens a head raises most and lowers most when it attends to each of tokens [token].

    Scores are logits of the head's write alone under the final norm. among [m]: only these ids. Full OV circuit, Elhage
    et al. 2021. Raises BadInput, UnsupportedModel.
    """
    model.require([head])
    circuits = circuits_of(model, head.layer, head.stack)
    written = to_logits(model, circuits.written(token_vectors(model, tokens, form))[head.head])
    matrix, bias = readout(model)
    return _ends(written, *_among(matrix, bias, among), k, among)


def attends_to(
    model: Model,
    head: HeadId,
    tokens: Tensor,
    k: int = 10,
    *,
    offset: int | None = None,
    form: str = "effective",
    among: Tensor | None = None,
) -> tuple[TopTokens, TopTokens]:
    """Which key tokens a head's query at each of tokens [token] looks for most and least, tokens standing alone in the stream.

    Scores are query times key before the attention's scale, made by the model's own code (biases, norms and rotary
    embeddings included). offset: how many tokens back the keys stand; None is 0. among [m]: only these keys. Full QK
    circuit, Elhage et al. 2021. Raises BadInput, UnsupportedModel.
    """
    model.require([head])
    layer = model.layer(head.layer, head.stack)
    vectors = token_vectors(model, tokens, form)
    queries = queries_of(model, layer, vectors, offset or 0)[:, head.head]
    if offset and torch.allclose(queries, queries_of(model, layer, vectors, 0)[:, head.head], atol=1e-6):
        raise _unturned(model, layer)
    ids = torch.arange(model.vocabulary_size) if among is None else among
    keys = [keys_of(model, layer, token_vectors(model, part, form))[:, head.head] for part in ids.split(CHUNK)]
    return _ends(queries, torch.cat(keys).T, None, k, among)


@dataclass(frozen=True, eq=False)
class Direction:
    """One singular direction of a circuit and the tokens at its two ends: what is read (or asks) and what is written (or is asked for).

    size: its singular value; share: its square over the sum of squares. up, down: (tokens in, tokens out) of either end.
    """

    size: float
    share: float
    up: tuple[TopTokens, TopTokens]
    down: tuple[TopTokens, TopTokens]


def singular(
    model: Model,
    head: HeadId,
    circuit: str = "ov",
    n: int = 5,
    k: int = 10,
    *,
    offset: int | None = None,
    form: str = "effective",
    among: Tensor | None = None,
) -> list[Direction]:
    """The n largest singular directions of a head's OV or QK circuit with the k tokens at each end.

    For ov: tokens that are read from a direction and tokens that are raised by what it writes; for qk: query tokens and
    the key tokens that they look for. Signs of both sides go together. Raises BadInput, UnsupportedModel.
    """
    if circuit not in ("ov", "qk"):
        raise BadInput(f"Unknown circuit '{circuit}'.", "Choose ov or qk.")
    model.require([head])
    circuits = circuits_of(model, head.layer, head.stack, offset=offset)
    chosen = circuits.only([head])[0 if circuit == "qk" else 1]
    left, sizes, right = (x[0] for x in chosen.svd())
    n = min(n, len(sizes))
    ids = torch.arange(model.vocabulary_size) if among is None else among
    vectors = [circuits.read(token_vectors(model, part, form)) for part in ids.split(CHUNK)]
    sources = torch.cat(vectors).T
    targets = sources if circuit == "qk" else _among(*readout(model), among)[0]
    (first, last), (more, less) = (
        _ends(side[:, :n].T, matrix, None, k, among) for side, matrix in ((left, sources), (right, targets))
    )
    whole = float(sizes.square().sum())
    return [
        Direction(float(sizes[i]), float(sizes[i] ** 2) / whole, (_row(first, i), _row(more, i)), (_row(last, i), _row(less, i)))
        for i in range(n)
    ]  # fmt: skip


def _row(found: TopTokens, i: int) -> TopTokens:
    return TopTokens(found.tokens[i : i + 1], found.scores[i : i + 1])


def _among(matrix: Tensor, bias: Tensor | None, among: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return (matrix, bias) if among is None else (matrix[:, among], None if bias is None else bias[among])


def _ends(
    vectors: Tensor, matrix: Tensor, bias: Tensor | None, k: int, among: Tensor | None
) -> tuple[TopTokens, TopTokens]:
    """The highest and the lowest columns of vectors [row, d] @ matrix [d, token] + bias, lowest first in the second."""
    ends = []
    for sign in (1.0, -1.0):
        scores, columns = top(sign * vectors, matrix, k, bias=None if bias is None else sign * bias)
        ends.append(TopTokens(columns if among is None else among[columns], sign * scores))
    return ends[0], ends[1]
