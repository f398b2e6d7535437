"""An attention layer as data: its modules and sizes, and which columns of which projections become q, k and v.

Nothing here computes on activations. `headatlas.model.structure` finds these facts when a model is loaded; everything
else in `headatlas.model` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headatlas.heads import HeadId
from headatlas.model.core.linear_and_norm import matrix, offset
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
    d_head: width of q and k; d_value: of a head in z. post_gain [d_model]: gain per channel between projection and
    residual stream, a norm's or a learned scale, or None; multiplier: factor there. qkv: where q, k and v come from; None
    where it cannot be told. post_norm: the norm whose gain post_gain is; None where it is a learned scale, or nothing.
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
    post_gain: Tensor | None
    multiplier: float
    pattern_editable: bool = True
    qkv: QKVColumns | None = None
    post_norm: nn.Module | None = None

    @property
    def heads(self) -> tuple[HeadId, ...]:
        """The heads of this layer."""
        return tuple(HeadId(self.index, head, self.stack) for head in range(self.n_heads))

    def output_weight(self) -> Tensor:
        """W_O per head, [head, d_value, d_model]; a view of the projection's weight, or a copy where it is quantised."""
        weight: Tensor = matrix(self.projection).unflatten(0, (self.n_heads, self.d_value))
        return weight

    def output_bias(self) -> Tensor | None:
        """Bias of the output projection, [d_model] or None."""
        return offset(self.projection)


def all_heads(layers: Sequence[AttentionLayer]) -> tuple[HeadId, ...]:
    """Every head of every layer in order."""
    return tuple(head for layer in layers for head in layer.heads)


def blocks_by_path(model: nn.Module) -> dict[str, nn.Module]:
    """The transformer blocks of a model by their paths: the members of its outermost module lists."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(known + ".") for known in found):
            found |= {f"{name}.{index}": member for index, member in enumerate(module)}
    return found
