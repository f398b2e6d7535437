"""What stands for a token at the bottom of the residual stream: its embedding, alone or with what the first MLP adds.

Learned by running the bottom of the model, not by knowing its family: scales (Gemma), norms (BLOOM) and projections of
embeddings are in, positions are out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.choices import FORM
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.hooks import Args, Kwargs, OwnHooks, own_hooks
from headatlas.model.core.model import Model
from headatlas.model.core.view import LayerView

_AT_ONCE = 4096  # tokens a pass


class _Reached(Exception):
    """Ends a run; holds what was wanted of it."""

    def __init__(self, found: Tensor) -> None:
        super().__init__()
        self.found = found


def embedded(model: Model, tokens: Tensor, form: str = "effective") -> Tensor:
    """Vectors [token, d_model] (float32) that stand for tokens [token] when circuits are read off the weights.

    embedding: E, what enters the first block, without its position.
    effective: E + MLP0(norm(E)), the first block's output with its attention silent, since in many models the first MLP is
    an extension of the embedding (Wang et al. 2022, McDougall et al. 2023). mlp: MLP0(norm(E)) alone (Gould et al. 2023).
    A block whose MLP adds nothing is passed over: put in front of a model, it must not change what its heads are told.
    Raises BadInput, and UnsupportedModel where a token's part cannot be told from its position's or the first block has
    no attention.
    """
    FORM.demand(form)
    if tokens.ndim != 1 or not len(tokens):
        raise BadInput(f"Tokens must be [token], at least one; got shape {tuple(tokens.shape)}.")
    block = _first_block(model)
    position = _position(model, block)
    found: list[Tensor] = []
    number = 0
    for part in tokens.split(_AT_ONCE):
        plain = _entering(model, block, part[:, None])[:, 0].float() - position
        if form != "embedding":
            number = number if found else _first_that_adds(model, part[:1], plain[:1])
            after = _after(model, number, part, plain)
            plain = after - plain if form == "mlp" else after
        found.append(plain)
    return torch.cat(found)


def _first_that_adds(model: Model, token: Tensor, stream: Tensor) -> int:
    """The number of the first block that adds anything to a token's stream [1, d_model] by itself; 0 where none does."""
    for number in range(len(model.decoder_blocks()) if model.restarts else 1):
        _demand_attention(model, number)
        if not torch.equal(_after(model, number, token, stream), stream.to(model.dtype).float()):
            return number
    return 0


def _first_block(model: Model) -> nn.Module:
    if model.kind == "encoder-decoder":
        raise UnsupportedModel(
            f"{model.name} has an encoder and a decoder; what a token is to a head is not given by its embedding alone.",
            "Weights of single heads can still be read: headatlas.model.structure.model_weights.",
        )
    return _demand_attention(model, 0)


def _demand_attention(model: Model, number: int) -> nn.Module:
    """The block of this number; raises UnsupportedModel where it has no attention that could be kept silent."""
    block = model.decoder_blocks()[number]
    if not any(layer.block is block for layer in model.layers):
        name = "first block" if number == 0 else f"block {number}, the first that may add to a token,"
        raise UnsupportedModel(f"The {name} of {model.name} has no attention heads, so no effective embedding.")
    return block


def _position(model: Model, block: nn.Module) -> Tensor:
    """What the first position adds to the stream, [d_model] or 0. Raises UnsupportedModel where it is not a sum."""
    size = min(model.vocabulary_size, 64)
    tokens = torch.linspace(0, model.vocabulary_size - 1, size).long()
    seen = _entering(model, block, tokens[:, None].expand(-1, 3)).float()
    rounding = 8 * torch.finfo(model.dtype).eps * float(seen.abs().max())
    step = seen[:, 1:] - seen[:, :1]
    if float(step.abs().max()) <= rounding:
        return seen.new_zeros(())
    table: Any = model.hf.get_input_embeddings
    matrix = table()(tokens.to(model.device)).detach().float()
    if float((step - step.mean(0)).abs().max()) <= rounding and matrix.shape == seen[:, 0].shape:
        centred, own = seen[:, 0] - seen[:, 0].mean(0), matrix - matrix.mean(0)
        scale = (centred * own).sum() / own.square().sum()
        position = (seen[:, 0] - scale * matrix).mean(0)
        if float((seen[:, 0] - scale * matrix - position).abs().max()) <= rounding:
            return position
    raise UnsupportedModel(
        f"{model.name} mixes tokens and positions before the first block (a norm over their sum), so a token alone has "
        "no embedding there.",
        "Scores from attention and activations do not need one: headatlas mine.",
    )


def _entering(model: Model, block: nn.Module, tokens: Tensor) -> Tensor:
    """[example, pos, d_model] what enters the first block for tokens [example, pos]."""

    def reach(_: nn.Module, args: Args, kwargs: Kwargs) -> None:
        raise _Reached(args[0] if args else kwargs["hidden_states"])

    return _until(model, tokens, None, lambda hooks: hooks.before(block, reach))


def _after(model: Model, number: int, tokens: Tensor, residual: Tensor) -> Tensor:
    """[token, d_model] the output of the block of this number for a residual stream [token, d_model], its attention silent."""
    block = model.decoder_blocks()[number]

    def silence(_: nn.Module, __: Args, ___: Kwargs, output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    def reach(_: nn.Module, __: Args, ___: Kwargs, output: Any) -> None:
        raise _Reached(output[0] if isinstance(output, tuple) else output)

    def put(hooks: OwnHooks) -> None:
        for layer in model.layers:
            if layer.block is block:
                hooks.after(layer.projection, silence)
        hooks.after(block, reach)

    entry = residual.to(model.dtype)[:, None]
    return _until(model, tokens[:, None], (number, entry), put)[:, 0].float()


def turned(model: Model, layer: AttentionLayer, position: int) -> Tensor:
    """How a position turns queries: [head, d_head, d_head] R with q_at_position = q @ R; the identity without rotary embeddings.

    Found by letting the layer's projections put out unit vectors as queries. Scales that do not depend on the position
    are not in (they are part of the weights). Raises UnsupportedModel where queries cannot be traced to projections.
    """
    if layer.qkv is None:
        raise UnsupportedModel(
            f"The queries of {layer.name} cannot be traced to its projections.", "Leave the offset out."
        )
    if not 0 <= position < model.tokenizer.context:
        raise BadInput(f"Offset {position} lies outside the context of {model.name}.", "Give 0 or a smaller offset.")
    origin, width = layer.qkv.q, layer.d_head
    which = {part: index for index, part in enumerate(origin.projections)}
    basis = torch.arange(width, device=model.device)

    def unit(module: nn.Module, _: Args, __: Kwargs, output: Tensor) -> Tensor:
        result = torch.zeros_like(output).view(width, -1, output.shape[-1])
        head, number = (origin.which == which[module]).nonzero(as_tuple=True)
        value = (1 / origin.factor[head, number]).to(output.dtype)
        result[basis[number], :, origin.column[head, number]] = value[:, None]
        return result.view_as(output)

    def skip(_: nn.Module, args: Args, __: Kwargs, output: Tensor) -> Tensor:
        through = args[0] if args else output
        return through.view_as(output)

    def put(hooks: OwnHooks) -> None:
        for part in which:
            hooks.after(part, unit)
        for part in layer.module.modules():
            if "norm" in type(part).__name__.lower():
                hooks.after(part, skip)

    def reach(view: LayerView) -> None:
        if view.attention is layer:
            raise _Reached(view.q[:, :, position])

    tokens = torch.zeros(width, position + 1, dtype=torch.long)
    entry = torch.zeros(width, position + 1, model.d_model, dtype=model.dtype, device=model.device)
    start = (
        (model.block_index(layer.stack, layer.index), entry) if model.restarts and layer.stack != "encoder" else None
    )
    found = _until(model, tokens, start, put, watch=reach).float()
    return found.transpose(0, 1)


def queries_of(model: Model, attention: AttentionLayer, stream: Tensor, offset: int) -> Tensor:
    """[token, head, d_head] float32 queries that a layer makes of residual streams [token, d_model] at position `offset`.

    By the model's own code: with its norms, biases and rotary embeddings. Raises BadInput, and UnsupportedModel where a run
    cannot start at the layer.
    """
    if not 0 <= offset < model.tokenizer.context:
        raise BadInput(f"Offset {offset} lies outside the context of {model.name}.", "Give 0 or a smaller offset.")
    return _made_of(model, attention, stream, offset, lambda view: view.q[:, :, offset])


def keys_of(model: Model, attention: AttentionLayer, stream: Tensor) -> Tensor:
    """[token, head, d_head] float32 keys that a layer makes of residual streams [token, d_model] at position 0, as `queries_of`."""
    return _made_of(model, attention, stream, 0, lambda view: view.repeat(view.k)[:, :, 0])


def _made_of(
    model: Model, attention: AttentionLayer, stream: Tensor, position: int, of: Callable[[LayerView], Tensor]
) -> Tensor:
    layer = model.block_index(attention.stack, attention.index)

    def reach(view: LayerView) -> None:
        if view.attention is attention:
            raise _Reached(of(view).float())

    found = []
    for part in stream.to(model.dtype).split(max(1, _AT_ONCE // (position + 1))):
        entry = part[:, None].expand(-1, position + 1, -1).contiguous()
        tokens = torch.zeros(entry.shape[:2], dtype=torch.long)
        found.append(_until(model, tokens, (layer, entry), lambda hooks: None, watch=reach))
    return torch.cat(found)


def _until(
    model: Model,
    tokens: Tensor,
    start: tuple[int, Tensor] | None,
    put: Callable[[OwnHooks], None],
    watch: Callable[[LayerView], None] | None = None,
) -> Tensor:
    """Run the model with the hooks that `put` puts on it, until one of them, or the watcher, has what is wanted."""
    with own_hooks() as hooks:
        put(hooks)
        try:
            model.forward(tokens, start_at=start, watch=watch)
        except _Reached as reached:
            return reached.found.detach()
    raise UnsupportedModel(f"A run of {model.name} did not come to the part of it that was asked for.")
