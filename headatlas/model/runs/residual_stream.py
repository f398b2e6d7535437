"""The residual stream taken apart: what every head and every MLP of a model adds to it, exactly.

That the parts add up to what each block really added is checked in every pass, at every position that is used; where
they do not, the model is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.model.core.forward_pass import Edit
from headatlas.model.core.hooks import Args, Kwargs, OwnHooks, own_hooks
from headatlas.model.core.linear_and_norm import offset
from headatlas.model.core.model import Model
from headatlas.model.core.pass_context import TokenBatch
from headatlas.model.core.unembedding import unembedding_of
from headatlas.model.core.view import LayerView
from headatlas.model.structure.blocks import Block, first, given, rounding_tolerance


@dataclass(frozen=True, eq=False)
class Writes:
    """What one block added to the residual stream at n positions of each example.

    entry, exit: [example, n, d_model] the stream before and after. z: [example, n, head, d_value] or None without attention.
    scale: [example, n, 1] what the norm after the attention multiplied by in this run (1 without). bias, mlp:
    [example, n, d_model] the attention's constant part, and the MLP's (all that a block without attention adds).
    """

    block: Block
    entry: Tensor
    exit: Tensor
    z: Tensor | None
    scale: Tensor
    bias: Tensor
    mlp: Tensor

    def heads(self, which: slice = slice(None)) -> Tensor:
        """[example, n, head, d_model] what each head added; the norm after the attention keeps this run's scale."""
        assert self.z is not None
        weight = self.block.weight[which].float()
        written = torch.einsum("enhv,hvm->enhm", self.z[:, :, which].float(), weight)
        return self.block.carried(written) * self.scale[:, :, None]

    def pull(self, direction: Tensor) -> Tensor:
        """[example, n, head, d_value] what z must be multiplied by to give a head's write along direction [example, n, d_model]."""
        return self.block.pulled(direction) * self.scale[:, :, None]


@dataclass(frozen=True, eq=False)
class FinalResidual:
    """The end of the stream: residual [example, n, d_model], the final norm's scale [example, n, 1], and the logits.

    raw: [example, n, vocab] what W_U gave. factor: what the model multiplies it by; capped: whether it then bends it.
    """

    model: Model
    residual: Tensor
    scale: Tensor
    raw: Tensor
    factor: float
    capped: bool

    def along(self, ids: Tensor, weights: Tensor) -> Tensor:
        """[example, d_model] the direction in the stream whose product with a write is its part of sum(weights * logits[ids]).

        ids, weights: [example, m]. The final norm's scale, this run's, is left out: multiply by `scale`.
        """
        return logit_direction(self.model, ids, weights) * self.factor

    def read(self, write: Tensor, scale: Tensor) -> Tensor:
        """[example, vocab] logits that a write [example, d_model] adds under a scale [example, 1], less their mean."""
        found = self.model.unembedding
        assert found is not None
        write = write - write.mean(-1, keepdim=True) if found.centers else write
        logits = (write * found.gain * scale * self.factor) @ found.weight.float()
        return logits - logits.mean(-1, keepdim=True)

    def constant(self, ids: Tensor, weights: Tensor) -> Tensor:
        """[example] the part of sum(weights * logits[ids]) that is there without any write: shift and bias of the read-out."""
        found = self.model.unembedding
        assert found is not None
        columns = found.weight.T[ids.to(found.weight.device)].float()
        weights = weights.to(columns.device).float()
        result = columns.new_zeros(len(ids))
        result = result + torch.einsum("emd,d,em->e", columns, found.shift, weights)
        bias = offset(found.head)
        if bias is not None:
            result = result + (bias.float()[ids.to(bias.device)] * weights).sum(1)
        return result * self.factor


def logit_direction(model: Model, ids: Tensor, weights: Tensor) -> Tensor:
    """[example, d_model]: W_U's columns of ids [example, m] weighted, through the final norm's gain and centring."""
    found = model.unembedding
    if found is None:
        raise UnsupportedModel(
            f"{model.architecture} has no linear read-out from its last hidden states to tokens, so nothing writes "
            "directly to its logits.",
            "Use a model with a language-model head.",
        )
    columns = found.weight.T[ids.to(found.weight.device)].float()
    direction = torch.einsum("emd,em->ed", columns, weights.to(columns.device).float())
    direction = direction * found.gain
    return direction - direction.mean(-1, keepdim=True) if found.centers else direction


def decompose(
    model: Model,
    blocks: tuple[Block, ...],
    batch: TokenBatch,
    positions: Tensor,
    each: Callable[[Writes], None],
    *,
    watch: Callable[[LayerView], None] | None = None,
    edits: Sequence[Edit] = (),
) -> FinalResidual:
    """Run the model (under edits) and hand on what each block wrote at positions [example, n], block after block.

    Returns the end of the stream. Raises UnsupportedModel where the parts do not add up.
    """
    with taking_apart(model, blocks, positions, each) as (look, ending):
        found = model.forward(batch, watch=_both(look, watch), edits=edits, logit_positions=positions)
    return ending(found, None)


@contextlib.contextmanager
def taking_apart(
    model: Model, blocks: tuple[Block, ...], positions: Tensor, each: Callable[[Writes], None]
) -> Iterator[tuple[Callable[[LayerView], None], Callable[[Tensor, Tensor | None], FinalResidual]]]:
    """The same for a pass of whoever enters this: gives what must watch it, and what makes the end of the stream of its logits.

    The second takes [example, m, vocab], and columns [n] of the logits that are those at `positions`, None where m = n. It raises
    UnsupportedModel where parts did not add up, not the pass.
    """
    end: dict[str, Tensor] = {}
    refused: list[UnsupportedModel] = []
    pick = _picker(positions)
    head = unembedding_of(model.hf)

    def last(writes: Writes) -> None:
        end["residual"] = writes.exit
        each(writes)

    def ending(logits: Tensor, columns: Tensor | None) -> FinalResidual:
        if refused:
            raise refused[0]
        if columns is not None:
            logits = logits[:, columns.to(logits.device)]
            end.update({name: x[:, columns.to(x.device)] for name, x in end.items() if name == "raw"})
        return _ending(model, end, logits)

    with own_hooks() as hooks:
        look = _visiting(hooks, model, blocks, positions, last, refused)
        if head is not None:
            hooks.before(head, lambda _, args, __: end.update(normed=pick(args[0]).detach()))
            hooks.after(head, lambda _, __, ___, output: end.update(raw=output.detach()))
        yield look, ending


def visit_blocks(
    model: Model,
    blocks: tuple[Block, ...],
    batch: TokenBatch,
    positions: Tensor,
    each: Callable[[Writes], None],
    *,
    watch: Callable[[LayerView], None] | None = None,
    edits: Sequence[Edit] = (),
    logit_positions: Tensor,
) -> Tensor:
    """The same without the end of the stream: returns the model's logits at `logit_positions`. Raises UnsupportedModel."""
    refused: list[UnsupportedModel] = []
    with own_hooks() as hooks:
        look = _visiting(hooks, model, blocks, positions, each, refused)
        found = model.forward(batch, watch=_both(look, watch), edits=edits, logit_positions=logit_positions)
    if refused:
        raise refused[0]
    return found


def _both(
    first: Callable[[LayerView], None], second: Callable[[LayerView], None] | None
) -> Callable[[LayerView], None]:
    def watch(layer: LayerView) -> None:
        first(layer)
        if second is not None:
            second(layer)

    return watch


def _visiting(
    hooks: OwnHooks,
    model: Model,
    blocks: tuple[Block, ...],
    positions: Tensor,
    each: Callable[[Writes], None],
    refused: list[UnsupportedModel],
) -> Callable[[LayerView], None]:
    """Put hooks through which `each` is shown the blocks of a pass, without gradients; returns what must watch that pass.

    refused: takes what `each`, or parts that do not add up, raised.
    """
    held: dict[int, dict[str, Tensor]] = {}
    shapes: dict[int, torch.Size] = {}
    at_layer = {
        (block.attention.stack, block.attention.index): block for block in blocks if block.attention is not None
    }
    pick = _picker(positions)

    def look(layer: LayerView) -> None:
        held[at_layer[layer.stack, layer.index].index]["z"] = pick(layer.z.detach())

    def on_entry(block: Block) -> Callable[..., None]:
        def hook(_: nn.Module, args: Args, kwargs: Kwargs) -> None:
            entry = given(args, kwargs)
            held[block.index], shapes[block.index] = {"entry": pick(entry.detach()).clone()}, entry.shape

        return hook

    def hold(block: Block, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Args, ___: Kwargs, output: Any) -> None:
            # Now, and as a copy: some blocks go on to add in place.
            held[block.index][name] = pick(first(output).detach().reshape(shapes[block.index])).clone()

        return hook

    def on_exit(block: Block) -> Callable[..., None]:
        def hook(_: nn.Module, __: Args, ___: Kwargs, output: Any) -> None:
            with torch.no_grad():
                try:
                    each(_writes(model, block, held.pop(block.index), pick(first(output).detach())))
                except UnsupportedModel as error:  # the pass may be one that others watch too
                    refused.append(error)

        return hook

    for block in blocks:
        hooks.before(block.module, on_entry(block))
        if block.attention is not None and block.mlp is not None:
            hooks.after(block.attention.projection, hold(block, "written"))
            hooks.after(block.mlp.post or block.mlp.module, hold(block, "mlp"))
            if block.post is not None:
                hooks.after(block.post.module, hold(block, "after"))
        hooks.after(block.module, on_exit(block))
    return look


def _picker(positions: Tensor) -> Callable[[Tensor], Tensor]:
    """Takes [example, n, ...] at positions [example, n] out of [example, pos, ...]."""

    def pick(x: Tensor) -> Tensor:
        index = positions.to(x.device).view(*positions.shape, *[1] * (x.ndim - 2))
        return x.gather(1, index.expand(-1, -1, *x.shape[2:]))

    return pick


def _writes(model: Model, block: Block, parts: dict[str, Tensor], output: Tensor) -> Writes:
    entry, exit_ = parts["entry"].float(), output.float()
    if block.attention is None or block.mlp is None:
        zero = torch.zeros_like(entry)
        return Writes(block, entry, exit_, None, torch.ones_like(entry[..., :1]), zero, exit_ - entry)
    scale = block.scale(parts["written"], parts.get("after", parts["written"]))
    bias = block.constant(scale)
    mlp = parts["mlp"].float() * block.mlp.factor
    found = Writes(block, entry, exit_, parts["z"], scale, bias, mlp)
    attention = block.carried(torch.einsum("enhv,hvm->enm", parts["z"].float(), block.weight.float())) * scale + bias
    off = (exit_ - entry - attention - mlp).abs().amax(-1)
    if not bool((off <= 10 * rounding_tolerance(model.dtype, entry, exit_, attention, mlp)).all()):
        raise UnsupportedModel(
            f"The parts of block {block.index} of {model.architecture} do not add up to what it added to the residual "
            f"stream on these prompts (off by {float(off.max()):.2g}).",
            "Direct effects and paths are not computed for it; ablation and patching are.",
        )
    return found


def _ending(model: Model, end: dict[str, Tensor], found: Tensor) -> FinalResidual:
    read = model.unembedding
    if read is None or "normed" not in end:
        raise UnsupportedModel(
            f"{model.architecture} has no linear read-out from its last hidden states to tokens, so nothing writes "
            "directly to its logits.",
            "Use a model with a language-model head.",
        )
    residual, normed = end["residual"].float(), end["normed"].float()
    plain = residual - residual.mean(-1, keepdim=True) if read.centers else residual
    plain, wanted = plain * read.gain, normed - read.shift
    scale = (wanted * plain).sum(-1, keepdim=True) / (plain * plain).sum(-1, keepdim=True)
    off = (wanted - scale * plain).abs().amax(-1)
    if not bool((off <= 10 * rounding_tolerance(model.dtype, normed, scale * plain)).all()):
        raise UnsupportedModel(
            f"Between the last block of {model.architecture} and its logits lies more than a norm.",
            "Direct effects on logits are not computed for it; ablation and patching are.",
        )
    raw, logits = end["raw"].float(), found.float()
    factor = float((logits * raw).sum() / (raw * raw).sum())
    factor = 1.0 if abs(factor - 1.0) < 1e-4 else factor
    limit = 1e-4 if model.dtype in (torch.float32, torch.float64) else 2e-2
    capped = bool((logits - factor * raw).abs().max() > limit * logits.abs().max())
    return FinalResidual(model, residual, scale, raw, 1.0 if capped else factor, capped)
