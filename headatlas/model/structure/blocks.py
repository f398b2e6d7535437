"""What a block is made of: its attention, its MLP, and what lies between them and the residual stream.

Which module of a block is its MLP, whether a norm or a factor lies between it and the stream, and what it
reads are found by watching one short pass, as everything about a model is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.hooks import Args, Kwargs, own_hooks
from headatlas.model.core.linear_and_norm import is_norm, norm_gain, norm_shift
from headatlas.model.core.model import Model


@dataclass(frozen=True, eq=False)
class PostNorm:
    """A norm between a part's output and the residual stream: its module, gain and shift [d_model], and whether it centres."""

    module: nn.Module
    gain: Tensor
    shift: Tensor
    centers: bool

    @classmethod
    def of(cls, module: nn.Module, width: int) -> PostNorm:
        """What a norm does, found by asking it."""
        gain, centers = norm_gain(module, width)
        return cls(module, gain, norm_shift(module, width), centers)


@dataclass(frozen=True, eq=False)
class MLP:
    """The MLP (feed-forward part) of a block: factor times the output of `module` (of `post` where there is one) is its write.

    reader: the module whose input is the stream after the attention; None where the block's own input is read.
    """

    module: nn.Module
    post: nn.Module | None
    factor: float
    reader: nn.Module | None


@dataclass(frozen=True, eq=False)
class Block:
    """One block of a model: its module, its attention layer (None in a block without), the norm behind that, and its MLP.

    The parts of a block without attention are not told apart: post and mlp are None there.
    """

    index: int
    module: nn.Module
    attention: AttentionLayer | None
    post: PostNorm | None
    mlp: MLP | None

    @property
    def weight(self) -> Tensor:
        """W_O per head, [head, d_value, d_model]. Raises UnsupportedModel where the projection is not linear."""
        self._layer.require_linear()
        return self._layer.output_weight()

    @property
    def _layer(self) -> AttentionLayer:
        assert self.attention is not None
        return self.attention

    def carried(self, written: Tensor) -> Tensor:
        """A write [..., d_model] on its way from the output projection into the stream, the post-norm's scale left out."""
        if self.post is not None and self.post.centers:
            written = written - written.mean(-1, keepdim=True)
        if (gain := self._layer.post_gain) is not None:
            written = written * gain.float()
        return written * self._layer.multiplier

    def pulled(self, direction: Tensor) -> Tensor:
        """[example, n, head, d_value] a direction [example, n, d_model] as z bears on it, the post-norm's scale left out."""
        if (gain := self._layer.post_gain) is not None:
            direction = direction * gain.float()
        if self.post is not None and self.post.centers:
            direction = direction - direction.mean(-1, keepdim=True)
        return torch.einsum("hvm,enm->enhv", self.weight.float(), direction * self._layer.multiplier)

    def scale(self, written: Tensor, after: Tensor) -> Tensor:
        """[example, n, 1] the post-norm's scale in a run, 1 without one.

        written, after: [example, n, d_model] what left the output projection, and what left the norm behind it.
        """
        if self.post is None:
            return torch.ones_like(written[..., :1], dtype=torch.float32)
        plain = written.float()
        plain = (plain - plain.mean(-1, keepdim=True) if self.post.centers else plain) * self.post.gain.float()
        shifted = after.float() - self.post.shift.float()
        return (shifted * plain).sum(-1, keepdim=True) / (plain * plain).sum(-1, keepdim=True).clamp(min=1e-30)

    @property
    def shift(self) -> Tensor | float:
        """[d_model] or 0: what the post-norm adds to everything."""
        return 0.0 if self.post is None else self.post.shift.float() * self._layer.multiplier

    def constant(self, scale: Tensor) -> Tensor:
        """[example, n, d_model] what the attention adds whatever its heads do: biases, on their way into the stream."""
        width = self._layer.d_model
        bias, result = self._layer.output_bias(), scale.new_zeros(*scale.shape[:-1], width)
        if bias is not None:
            result = result + self.carried(bias.float()) * scale
        return result + self.shift


@dataclass(frozen=True, eq=False)
class _Inner:
    """One call of a module in a block: what it was given and made, and a copy of that, for blocks that add in place."""

    module: nn.Module
    given: Tensor
    made: Tensor
    value: Tensor


@dataclass
class _Seen:
    """What one pass showed of a block: its input and output, and each inner module's input and output, in order."""

    entry: Tensor | None = None
    exit: Tensor | None = None
    calls: list[_Inner] = field(default_factory=list)

    def of(self, module: nn.Module) -> _Inner | None:
        return next((call for call in self.calls if call.module is module), None)

    def taker(self, output: Tensor) -> _Inner | None:
        """The call of a norm that was given this very tensor."""
        return next((call for call in self.calls if call.given is output and is_norm(call.module)), None)


@torch.no_grad()
def blocks_of(model: Model) -> tuple[Block, ...]:
    """The blocks of a model with their parts. Raises UnsupportedModel where they cannot be told apart."""
    if len(model.stacks) != 1:
        raise UnsupportedModel(
            f"{model.architecture} has an encoder and a decoder, whose residual streams meet in cross-attention.",
            "What its parts write is computed for models of one stack only.",
        )
    blocks = model.decoder_blocks()
    for layer in model.layers:
        model.block_index(layer.stack, layer.index)
    seen: dict[nn.Module, _Seen] = {block: _Seen() for block in blocks}
    size = max(model.vocabulary_size, 8)
    tokens = torch.randint(size // 8, size, (1, 8), generator=torch.Generator().manual_seed(0))
    with own_hooks() as hooks:
        for block in blocks:
            hooks.before(block, _enter(seen[block]))
            hooks.after(block, _leave(seen[block]))
            for inner in block.modules():
                if inner is not block:
                    hooks.after(inner, _inner(seen[block]))
        model.forward(tokens, logit_positions=torch.zeros(1, dtype=torch.long))
    homes = {id(layer.block): layer for layer in model.layers}
    if len(homes) < len(model.layers):
        raise UnsupportedModel(f"A block of {model.architecture} attends twice, so its parts are not told apart.")
    return tuple(_block_parts(model, i, block, homes.get(id(block)), seen[block]) for i, block in enumerate(blocks))


def _block_parts(model: Model, index: int, block: nn.Module, layer: AttentionLayer | None, seen: _Seen) -> Block:
    if layer is None:
        return Block(index, block, None, None, None)
    refusal = UnsupportedModel(
        f"What block {index} of {model.architecture} ({type(block).__name__}) adds to the residual stream is not what its "
        "attention writes plus an MLP.",
        "Direct effects and paths are not computed for it; ablation and patching are.",
    )
    call = seen.of(layer.projection)
    if call is None or seen.entry is None or seen.exit is None or call.value.numel() != seen.entry.numel():
        raise refusal
    entry, exit_ = seen.entry.float(), seen.exit.float()
    norm = seen.taker(call.made)
    found = Block(index, block, layer, PostNorm.of(norm.module, entry.shape[-1]) if norm is not None else None, None)
    written = call.value.reshape(entry.shape)
    scale = found.scale(written, norm.value.reshape(entry.shape) if norm is not None else written)
    attention = found.carried(written.float()) * scale + found.shift
    missing = exit_ - entry - attention
    inside = set(layer.module.modules())
    for module in block.modules():
        call = seen.of(module)
        outside = layer.projection not in set(module.modules()) and module not in inside
        bare = is_norm(module) or next(module.parameters(), None) is None
        if call is None or bare or not outside or call.value.numel() != entry.numel():
            continue
        norm = seen.taker(call.made)
        write = (norm or call).value.reshape(entry.shape).float()
        factor = float((missing * write).sum() / (write * write).sum().clamp(min=1e-30))
        if not bool(write.any()):  # an MLP of zeros, as in planted models; what it writes is checked in every pass
            factor = 1.0
        if factor != 0.0 and _same(missing, factor * write, entry, exit_, model.dtype):
            factor = 1.0 if abs(factor - 1.0) < 1e-4 else factor
            reader = _reader(seen, call, entry, entry + attention, model.dtype)
            mlp = MLP(module, norm.module if norm is not None else None, factor, reader)
            return Block(index, block, layer, found.post, mlp)
    raise refusal


def _reader(seen: _Seen, mlp: _Inner, entry: Tensor, middle: Tensor, dtype: torch.dtype) -> nn.Module | None:
    """What is given the stream as it is after the attention: the MLP itself, or the first module."""
    for call in (mlp, *seen.calls):
        if call.given.shape[-1] == middle.shape[-1] and call.given.numel() == middle.numel():
            given = call.given.reshape(middle.shape).float()
            if _same(given, middle, entry, middle, dtype) and not _same(given, entry, entry, middle, dtype):
                return call.module
    return None


def _same(found: Tensor, expected: Tensor, entry: Tensor, exit_: Tensor, dtype: torch.dtype) -> bool:
    return bool(((found - expected).abs().amax(-1) <= rounding_tolerance(dtype, entry, exit_, expected)).all())


def rounding_tolerance(dtype: torch.dtype, *sizes: Tensor) -> Tensor:
    """[...] how far two sums of vectors of these sizes [..., d_model] may lie apart at each position."""
    limit = 1e-5 if dtype in (torch.float32, torch.float64) else 2e-2
    return limit * torch.stack([value.abs().amax(-1) for value in sizes]).amax(0) + 1e-9


def first(value: Any) -> Any:
    """The hidden states among what a module returned."""
    return value[0] if isinstance(value, tuple | list) and value else value


def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The hidden states among what a module was given."""
    return args[0] if args else kwargs.get("hidden_states")


def _leave(seen: _Seen) -> Callable[..., None]:
    def hook(_: nn.Module, __: Args, ___: Kwargs, output: Any) -> None:
        seen.exit = first(output).detach().clone()

    return hook


def _enter(seen: _Seen) -> Callable[..., None]:
    def hook(_: nn.Module, args: Args, kwargs: Kwargs) -> None:
        seen.entry = given(args, kwargs).detach().clone()  # some blocks go on to add in place

    return hook


def _inner(seen: _Seen) -> Callable[..., None]:
    def hook(module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> None:
        took, made = given(args, kwargs), first(output)
        if isinstance(took, Tensor) and isinstance(made, Tensor):
            seen.calls.append(_Inner(module, took, made, made.detach().clone()))

    return hook
