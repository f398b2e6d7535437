"""An attention layer as data: its modules and sizes, and which columns of which projections become q, k and v.

Nothing here computes on activations. `headatlas.model.structure` finds these facts when a model is loaded; everything
else in `headatlas.model` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model.core.linear_and_norm import matrix, norm_gain, offset, output_width
from headatlas.renamed import renamed_fields


@dataclass(frozen=True, eq=False)
class ColumnSource:
    """Where an array of numbers comes from: column `column` of `projections[which]` times `factor`, element by element.

    which, column (integers) and factor have the shape of the array. clipped: large numbers do not come through whole
    (OLMo's clip_qkv).
    """

    projections: tuple[nn.Module, ...]
    which: Tensor
    column: Tensor
    factor: Tensor
    clipped: bool

    def is_one_to_one(self) -> bool:
        """Whether each number has a column of its own."""
        pairs = torch.stack([self.which.flatten(), self.column.flatten()])
        different: Tensor = pairs.unique(dim=1)
        return different.shape[1] == pairs.shape[1]


@dataclass(frozen=True, eq=False)
class Input:
    """What a projection reads: the module's input (origin None) or other projections' columns; and the norm before it."""

    origin: ColumnSource | None
    norm: nn.Module | None


@dataclass(frozen=True, eq=False)
class QKVColumns:
    """The columns that become q [head, d_head], k and v [group, d]; and what each projection involved reads."""

    q: ColumnSource
    k: ColumnSource
    v: ColumnSource
    inputs: dict[nn.Module, Input]


@renamed_fields(layer="index", wiring="qkv")
@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One attention layer: the module that attends and the output projection that its heads write through.

    stack, index: decoder, encoder or cross, and the number of the block from 0. block: the transformer block that it lies
    in; None where layers share one or there is no list of them. name: path of the module. n_groups: key/value heads.
    projection may be a wrapper around a linear map (LoRA's); linear: whether what it puts out is a sum over the heads, which it
    is not where the projection rounds its input (int8 activations) or has a nonlinear adapter beside it.
    d_head: width of q and k; d_value: of a head in z. post_norm: the norm between projection and residual stream, or None;
    learned_gain [d_model]: a learned scale there, as it was when the model was opened; multiplier: factor there. qkv: where q, k and v come from; None
    where it cannot be told. indirect: why neither gain nor factor tells how writes enter the stream, as where several streams
    share them or a convolution spreads them over tokens; empty where they tell. sink_factor: whether a learned sink is a factor on the attention's output
    and not a logit; weights are given with it.
    """

    stack: str
    index: int
    module: nn.Module
    projection: nn.Module
    block: nn.Module | None
    name: str
    n_heads: int
    n_groups: int
    d_head: int
    d_value: int
    causal: bool
    learned_gain: Tensor | None
    multiplier: float
    pattern_editable: bool = True
    linear: bool = True
    qkv: QKVColumns | None = None
    indirect: str = ""
    sink_factor: bool = False
    post_norm: nn.Module | None = None

    def __repr__(self) -> str:
        return f"AttentionLayer({self.stack} {self.index}: {self.n_heads} heads, {self.n_groups} KV groups)"

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """The heads of this layer."""
        return tuple(HeadId(self.index, head, self.stack) for head in range(self.n_heads))

    @property
    def d_model(self) -> int:
        """Width of what the heads write."""
        return output_width(self.projection)

    @property
    def post_gain(self) -> Tensor | None:
        """Gain per channel between projection and residual stream, [d_model], or None; a norm is asked for its gain of now."""
        if self.post_norm is None:
            return self.learned_gain
        gain = norm_gain(self.post_norm, self.d_model)[0]
        return gain if self.learned_gain is None else gain * self.learned_gain

    def require_linear(self) -> None:
        """Raise UnsupportedModel unless the heads' writes add up to what the projection puts out."""
        if not self.linear:
            raise UnsupportedModel(
                f"The output projection of {self.name} ({type(self.projection).__name__}) is not linear in the heads' outputs: it rounds "
                "them (int8 or bfloat16 activations), or an adapter beside it bends them. What single heads write is not defined.",
                "Ablation, patching, other edits and attention patterns are exact; for writes load float weights or merge the adapter.",
            )

    def output_weight(self) -> Tensor:
        """W_O per head, [head, d_value, d_model]; a view of the projection's weight, or a copy where it is quantised."""
        weight: Tensor = matrix(self.projection).unflatten(0, (self.n_heads, self.d_value))
        return weight

    def output_bias(self) -> Tensor | None:
        """Bias of the output projection, [d_model] or None."""
        return offset(self.projection)

    def require_direct(self) -> None:
        """Raise UnsupportedModel unless a head's write enters the residual stream by a factor or a gain per channel."""
        if self.indirect:
            raise UnsupportedModel(
                f"{self.indirect} in {self.stack} layer {self.index} ({self.name}), so what a head writes into the residual stream "
                "cannot be read off its weights.",
                "Edit or ablate heads instead: z, patterns and scores of patterns are exact.",
            )


def all_heads(layers: Sequence[AttentionLayer]) -> tuple[HeadId, ...]:
    """Every head of every layer in order."""
    return tuple(head for layer in layers for head in layer.heads)


def blocks_by_path(model: nn.Module) -> dict[str, nn.Module]:
    """The transformer blocks of a model by their paths: the members of its outermost module lists.

    Each run that starts at a layer asks, so what lies within the blocks is not walked through.
    """
    found: dict[str, nn.Module] = {}
    seen: set[nn.Module] = set()

    def visit(module: nn.Module, path: str) -> None:
        if module in seen:
            return
        seen.add(module)
        for name, part in module.named_children():
            inner = f"{path}.{name}" if path else name
            if isinstance(part, nn.ModuleList) and part not in seen:
                seen.update((part, *part))
                found.update({f"{inner}.{index}": member for index, member in enumerate(part)})
            else:
                visit(part, inner)

    visit(model, "")
    return found


def layer_at(name: str, layers: Sequence[AttentionLayer], index: int, stack: str) -> AttentionLayer:
    """The attention layer `index` of a stack; raises BadInput naming what the model called `name` has."""
    mine = [layer for layer in layers if layer.stack == stack]
    found = next((layer for layer in mine if layer.index == index), None)
    if found is not None:
        return found
    known = sorted(layer.index for layer in mine)
    stacks = ", ".join(dict.fromkeys(layer.stack for layer in layers))
    there = f"its layers with attention are {known[0]} to {known[-1]}" if known else f"its stacks are {stacks}"
    raise BadInput(f"{name} has no attention layer {index} in the {stack}; {there}.")


def demand_heads(name: str, layers: Sequence[AttentionLayer], heads: Iterable[HeadId]) -> None:
    """Raise BadInput unless the model called `name` has every one of the heads."""
    known = set(all_heads(layers))
    stacks = {layer.stack for layer in layers}
    for head in heads:
        if head in known:
            continue
        other = head._replace(stack=layers[0].stack)
        if head.stack == "decoder" and "decoder" not in stacks and other in known:
            raise BadInput(f"{name} has no decoder.", f"Write {other}.")
        width = layer_at(name, layers, head.layer, head.stack).n_heads
        raise BadInput(f"{name} has no head {head}: layer {head.layer} has heads 0 to {width - 1}.")


def main_blocks(hf: nn.Module, layers: Sequence[AttentionLayer]) -> list[nn.Module]:
    """The blocks of the main stack in order: the decoder's where there is one. Raises UnsupportedModel."""
    first = next((layer for layer in layers if layer.stack == "decoder"), layers[0])
    found = blocks_by_path(hf)
    home = next((path for path in found if first.name.startswith(path + ".")), None)
    if home is None:
        raise UnsupportedModel(f"{type(hf).__name__} keeps its blocks in no list, so runs cannot start at a layer.")
    prefix = home.rsplit(".", 1)[0]
    return [block for path, block in found.items() if path.rsplit(".", 1)[0] == prefix]
