"""Edits of heads: frozen callables that return a new tensor, given to `Model.forward(edits=[...])`.

They act on z [example, pos, head, d_value], each head's output before the output projection, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headatlas.heads import HeadId, parse_heads

Heads = str | HeadId | Iterable[str | HeadId]


@dataclass(frozen=True, eq=False)
class OnHeads:
    """Base: an edit of the z of some heads."""

    heads: tuple[HeadId, ...]

    def __init__(self, heads: Heads) -> None:
        object.__setattr__(self, "heads", parse_heads(heads))

    @property
    def site(self) -> str:
        """What is edited."""
        return "z"

    @property
    def layers(self) -> frozenset[tuple[str, int]]:
        """The (stack, layer) pairs it acts on."""
        return frozenset((head.stack, head.layer) for head in self.heads)

    def here(self, at: Any) -> list[int]:
        """The edit's heads that lie in the layer of `at`."""
        return [head.head for head in self.heads if head.layer == at.layer and head.stack == at.stack]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' '.join(str(head) for head in self.heads)})"


class Zero(OnHeads):
    """Set the output of heads to zero (zero ablation)."""

    def __call__(self, at: Any, x: Tensor) -> Tensor:
        """[example, pos, head, d] with the heads' entries zero."""
        keep = torch.ones(x.shape[2], dtype=x.dtype, device=x.device)
        keep[self.here(at)] = 0
        return x * keep[:, None]


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Mean(OnHeads):
    """Replace the output of heads by their mean over a reference (mean ablation).

    values: (stack, layer) -> [head, d] or, per position, [pos, head, d], such as `methods.ablation.mean_z` gives.
    """

    values: Mapping[tuple[str, int], Tensor]

    def __init__(self, heads: Heads, values: Mapping[tuple[str, int], Tensor]) -> None:
        super().__init__(heads)
        object.__setattr__(self, "values", values)

    def __call__(self, at: Any, x: Tensor) -> Tensor:
        """[example, pos, head, d] with the heads' entries replaced."""
        chosen = self.here(at)
        value = self.values[at.stack, at.layer].to(x.device, x.dtype)
        changed = x.clone()
        changed[:, :, chosen] = value[..., chosen, :]
        return changed


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Resample(OnHeads):
    """Replace the output of heads by what they put out on other prompts of the same length (resample ablation).

    values: (stack, layer) -> z [example, pos, head, d] of the other run.
    """

    values: Mapping[tuple[str, int], Tensor]

    def __init__(self, heads: Heads, values: Mapping[tuple[str, int], Tensor]) -> None:
        super().__init__(heads)
        object.__setattr__(self, "values", values)

    def __call__(self, at: Any, x: Tensor) -> Tensor:
        """[example, pos, head, d] with the heads' entries replaced."""
        chosen = self.here(at)
        changed = x.clone()
        changed[:, :, chosen] = self.values[at.stack, at.layer].to(x.device, x.dtype)[:, :, chosen]
        return changed
