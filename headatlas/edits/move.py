"""Edits that move what heads compute: along a direction, away from one, or by a factor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from headatlas.edits.base import Heads, Layers, OnHeads, Where
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.ops.types import LayerKey

if TYPE_CHECKING:
    from headatlas.model.core.view import LayerView

Key = HeadId | LayerKey
Directions = Tensor | Mapping[Key, Tensor]  # one for all, or by head (by layer for the residual stream)


class _Along(OnHeads):
    """Base of edits with directions in the space of the component, by head."""

    directions: Mapping[Key, Tensor]
    components = ("q", "k", "v", "z", "residual")

    def __init__(self, heads: Heads | Layers, directions: Directions, **where: Unpack[Where]) -> None:
        super().__init__(heads, **where)
        keys: list[Key] = list(self.heads) or sorted(self.layers)
        if isinstance(directions, Tensor):
            directions = {key: directions for key in keys}
        missing = [str(key) for key in keys if key not in directions]
        if missing:
            raise BadInput(f"{type(self).__name__} has no direction for {', '.join(missing)}.")
        self._set(directions={key: directions[key].detach().clone() for key in keys})

    def options(self) -> dict[str, Any]:
        """The directions."""
        return {"directions": self.directions}

    def _vectors(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """The directions of the heads in `index`, stacked; for a KV group those of its first head named."""
        size = layer.n_heads // layer.k.shape[1] if self.component in ("k", "v") else 1
        named = self.here(layer)
        vectors = []
        for i in index.tolist():
            if self.component == "residual":
                key: Key = (layer.stack, layer.index)
            else:
                key = HeadId(layer.index, next(head for head in named if head // size == i), layer.stack)
            vectors.append(self.directions[key].to(x.device))
        if vectors[0].shape[-1] != x.shape[-1]:
            raise BadInput(
                f"{self!r} has directions of {vectors[0].shape[-1]} numbers, layer {layer.index} has {x.shape[-1]}."
            )
        return torch.stack(vectors)


class Add(_Along):
    """Add a direction times `scale` (steering, directional addition). See `headatlas.edits.directions`."""

    scale: float

    def __init__(
        self, heads: Heads | Layers, directions: Directions, scale: float = 1.0, **where: Unpack[Where]
    ) -> None:
        super().__init__(heads, directions, **where)
        self._set(scale=self._number("scale", scale))

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """Moved values."""
        return x + self.scale * self._vectors(layer, x, index).to(x.dtype)

    def details(self) -> list[str]:
        """The factor."""
        return [f"x {self.scale:g}"]

    def options(self) -> dict[str, Any]:
        """Directions and scale."""
        return {**super().options(), "scale": self.scale}


class Project(_Along):
    """Remove the part along directions [width] or [k, width] (directional subtraction), or with only=True all else."""

    only: bool

    def __init__(
        self, heads: Heads | Layers, directions: Directions, only: bool = False, **where: Unpack[Where]
    ) -> None:
        super().__init__(heads, directions, **where)
        self._set(only=bool(only), directions=_bases(self.directions))

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """Projected values."""
        basis = self._vectors(layer, x, index)
        along = torch.einsum("ethd,hkd,hkc->ethc", x.float(), basis, basis)
        return along if self.only else x.float() - along

    def details(self) -> list[str]:
        """Which part stays."""
        return ["keeping only them"] if self.only else []

    def options(self) -> dict[str, Any]:
        """Directions and which part stays."""
        return {**super().options(), "only": self.only}


def _bases(directions: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    """Orthonormal rows [k, width] that span each head's directions, so that overlapping ones count once."""
    found = {}
    for key, value in directions.items():
        rows = value.float().reshape(-1, value.shape[-1])
        _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
        if float(sizes[0]) == 0:
            raise BadInput(f"The direction for {key} is zero.", "A zero direction cannot be projected on.")
        # Rows of no size of their own become zero: they project on nothing.
        found[key] = basis * (sizes > 1e-5 * sizes[0])[:, None]
    most = max(len(basis) for basis in found.values())
    return {key: torch.nn.functional.pad(basis, (0, 0, 0, most - len(basis))) for key, basis in found.items()}


class Scale(OnHeads):
    """Multiply what heads compute by a factor."""

    factor: float
    by_pattern = True

    def __init__(self, heads: Heads | Layers, factor: float, **where: Unpack[Where]) -> None:
        super().__init__(heads, **where)
        self._set(factor=self._number("factor", factor))

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """Scaled values."""
        return x * self.factor

    def details(self) -> list[str]:
        """The factor."""
        return [f"x {self.factor:g}"]

    def options(self) -> dict[str, Any]:
        """The factor."""
        return {"factor": self.factor}
