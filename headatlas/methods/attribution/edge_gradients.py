"""The gradient of a metric by what each reader of a block takes from the residual stream, from one recorded run.

Every reader's gradient is what comes back through its own projections and norm alone. Taken one reader at a time that is a backward pass through
a whole projection for each head, nearly all of it zeros. Where a block's queries, keys and values are columns of linear maps, the same
comes cheaper, in three steps:

1. The gradient by the output of the projection, for all heads at once. A head's part of it are its own columns, as long as what
   lies between (rotation, a norm of each head) does not mix heads.
2. Times the head's own columns of the weight: the gradient by the input of the projection, one vector a head.
3. Back through what lies before the projection (a norm), all heads as one batch.

Whether heads are mixed is not known from a configuration (OLMo 2 has one norm over all queries), so the first run takes the first head of
each kind the long way too, and a block in which they differ goes the long way from then on. An MLP is taken the long way in the first
run; where what comes back then equals the gradient behind the attention less that behind the block, the difference serves for later runs, which
have the same modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.model import Model
from headatlas.model.core.attention_layer import AttentionLayer, ColumnSource
from headatlas.model.core.hooks import Args, Kwargs, OwnHooks
from headatlas.model.core.linear_and_norm import plain_weight

KINDS = ("q", "k", "v")
ALIKE = 1e-4  # relative difference of two ways to one gradient in float32, above which they are not the same


@dataclass
class Recorded:
    """What one run kept of one block, with gradients.

    entry, after: [example, pos, d_model] the block's input and its output. arrays: q, k, v [example, head, pos, d]. projections: what each
    projection of them read and gave. middle: what the MLP read, where not the entry; mlp: what it gave.
    """

    entry: Tensor
    after: Tensor
    arrays: Mapping[str, Tensor]
    projections: Mapping[nn.Module, tuple[Tensor, Tensor]]
    middle: Tensor | None
    mlp: Tensor


@dataclass
class Shortcuts:
    """What was found out about a model's blocks in its first run. heads, mlps: block -> whether the cheaper way gives the same."""

    heads: dict[int, bool] = field(default_factory=dict)
    mlps: dict[int, bool] = field(default_factory=dict)


def reader_gradients(
    model: Model, layer: AttentionLayer, block: Recorded, slope: Mapping[int, Tensor], known: Shortcuts
) -> Tensor:
    """[example, reader, pos, d_model] for the queries of each head, keys and values of each group, and the MLP.

    slope: id of a recorded tensor -> gradient by it. Raises UnsupportedModel where they do not add up to the gradient of the block's input.
    """
    felt = _of_heads(layer, block, slope, known)
    mlp = _of_mlp(layer.index, block, slope, known)
    found = torch.cat([felt, mlp.unsqueeze(1)], 1).float()
    summed, whole = found.sum(1) + slope[id(block.after)].float(), slope[id(block.entry)].float()
    limit = 1e-3 if model.dtype in (torch.float32, torch.float64) else 5e-2
    if float((summed - whole).norm()) > limit * float(whole.norm()) + 1e-12:
        raise UnsupportedModel(
            f"Block {layer.index} of {model.architecture} reads its input in more ways than as queries, keys, values and an "
            "MLP, so its edges cannot be told apart.",
            "Use --method atp, or patch.",
        )
    return found


def _of_mlp(index: int, block: Recorded, slope: Mapping[int, Tensor], known: Shortcuts) -> Tensor:
    """[example, pos, d_model] of the MLP."""
    short = None
    if block.middle is not None and id(block.middle) in slope:
        short = slope[id(block.middle)].view_as(block.entry) - slope[id(block.after)]
    if short is not None and known.mlps.get(index):
        return short
    read = block.entry if block.middle is None else block.middle
    long = torch.autograd.grad(block.mlp, read, slope[id(block.mlp)], retain_graph=True)[0].view_as(block.entry)
    known.mlps[index] = short is not None and _alike(short, long)
    return long


def _of_heads(layer: AttentionLayer, block: Recorded, slope: Mapping[int, Tensor], known: Shortcuts) -> Tensor:
    """[example, reader, pos, d_model] of queries, keys and values."""
    if known.heads.get(layer.index, True):
        found = _by_columns(layer, block, slope)
        if found is not None and layer.index not in known.heads:
            counts = [block.arrays[kind].shape[1] for kind in KINDS]
            starts = [0, counts[0], counts[0] + counts[1]]
            known.heads[layer.index] = all(
                _alike(found[:, start], _one(block, slope, kind, 0)) for kind, start in zip(KINDS, starts, strict=True)
            )
        if found is not None and known.heads[layer.index]:
            return found
        known.heads[layer.index] = False
    return torch.stack([_one(block, slope, kind, i) for kind in KINDS for i in range(block.arrays[kind].shape[1])], 1)


def _one(block: Recorded, slope: Mapping[int, Tensor], kind: str, number: int) -> Tensor:
    """[example, pos, d_model] of one head's queries, or of one group's keys or values, the long way."""
    array = block.arrays[kind]
    back = slope[id(array)]
    alone = torch.zeros_like(back)
    alone[:, number] = back[:, number]
    return torch.autograd.grad(array, block.entry, alone, retain_graph=True)[0]


def _by_columns(layer: AttentionLayer, block: Recorded, slope: Mapping[int, Tensor]) -> Tensor | None:
    """The same as columns of linear maps, or None where they are not."""
    if layer.qkv is None:
        return None
    found: list[tuple[Tensor, Tensor]] = []
    for kind in KINDS:
        array = block.arrays[kind]
        one = _at_input(getattr(layer.qkv, kind), block, array, slope[id(array)], layer.qkv.inputs)
        if one is None:
            return None
        found.append(one)
    try:
        if all(read is found[0][0] for read, _ in found):  # one norm before all of them
            return _through(found[0][0], block.entry, torch.cat([felt for _, felt in found]))
        return torch.cat([_through(read, block.entry, felt) for read, felt in found], 1)
    except RuntimeError:  # an operation that takes no batch of gradients
        return None


def _at_input(
    source: ColumnSource, block: Recorded, array: Tensor, back: Tensor, inputs: Mapping[nn.Module, Any]
) -> tuple[Tensor, Tensor] | None:
    """(what the projection read, [head, example, pos, d_in] the gradient by that of each head)."""
    which = source.which.unique()
    if len(which) != 1 or source.clipped or not source.is_one_to_one():
        return None
    projection = source.projections[int(which)]
    weight = plain_weight(projection)
    if weight is None or projection not in block.projections or inputs[projection].origin is not None:
        return None
    read, gave = block.projections[projection]
    (felt,) = torch.autograd.grad(array, gave, back, retain_graph=True, allow_unused=True)
    if felt is None or felt.shape[:-1] != block.entry.shape[:-1] or read.shape[:-1] != block.entry.shape[:-1]:
        return None
    own, columns = _taken(felt, source.column), _taken(weight, source.column)
    return read, torch.einsum("enhd,mhd->henm", own, columns.to(own.dtype))


def _taken(x: Tensor, column: Tensor) -> Tensor:
    """x [..., columns] at columns [head, d]: [..., head, d], a view where they lie side by side."""
    start, n = int(column[0, 0]), column.numel()
    if torch.equal(column.flatten(), torch.arange(start, start + n, device=column.device)):
        return x[..., start : start + n].unflatten(-1, column.shape)
    return x[..., column.to(x.device)]


def _through(read: Tensor, entry: Tensor, felt: Tensor) -> Tensor:
    """[example, head, pos, d_model] the gradients by the block's input of gradients by what a projection read."""
    if read is entry or (read.data_ptr() == entry.data_ptr() and read.shape == entry.shape):
        return felt.transpose(0, 1)
    (found,) = torch.autograd.grad(read, entry, felt, retain_graph=True, is_grads_batched=True)
    return found.transpose(0, 1)


@torch.no_grad()
def _alike(one: Tensor, other: Tensor) -> bool:
    limit = ALIKE if one.dtype in (torch.float32, torch.float64) else 2e-2
    return float((one - other).float().norm()) <= limit * float(other.float().norm()) + 1e-12


def listen_to_projections(
    hooks: OwnHooks, layers: Sequence[AttentionLayer], kept: dict[int, dict[nn.Module, tuple[Tensor, Tensor]]]
) -> None:
    """Keep what each projection of queries, keys and values reads and gives, by block."""
    for layer in layers:
        if layer.qkv is None:
            continue
        for projection in layer.qkv.inputs:

            def keep(module: nn.Module, args: Args, _: Kwargs, output: Any, index: int = layer.index) -> None:
                if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                    kept.setdefault(index, {})[module] = (args[0], output)

            hooks.after(projection, keep)
