"""An edit that scales and shifts what heads compute, dimension by dimension: the form that most learned interventions have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from headatlas.edits.base import Heads, Layers, OnHeads, Where
from headatlas.edits.move import Key
from headatlas.errors import BadInput
from headatlas.heads import HeadId

if TYPE_CHECKING:
    from headatlas.model.core.view import LayerView


class Affine(OnHeads):
    """scale * x + shift, by head (by layer for the residual stream).

    scale, shift: key -> [width], or [1] for all dimensions alike; a key that one of them lacks is left alone by it. Tensors
    are kept as they are, so that their gradients can be taken. newest: act at the last token of each pass only, which in
    generation is the one that decides the next token; texts of several lengths must then be padded on the left, as
    generate() wants them. Otherwise at `positions`, or everywhere.
    """

    scale: Mapping[Key, Tensor]
    shift: Mapping[Key, Tensor]
    newest: bool
    components = ("z", "residual")

    def __init__(
        self,
        heads: Heads | Layers,
        scale: Mapping[Any, Tensor] | None = None,  # of heads or of layers: keys of a Mapping are invariant to checkers
        shift: Mapping[Any, Tensor] | None = None,
        newest: bool = False,
        **where: Unpack[Where],
    ) -> None:
        super().__init__(heads, **where)
        if newest and self.positions is not None:
            raise BadInput("An edit acts at the newest token, or at positions.", "Leave one of them out.")
        keys: set[Key] = {*self.heads, *(self.layers if self.component == "residual" else ())}
        given = {name: dict(values or {}) for name, values in (("scale", scale), ("shift", shift))}
        strange = sorted(str(key) for values in given.values() for key in values if key not in keys)
        if strange:
            raise BadInput(f"Affine has numbers for {', '.join(strange)}, which it does not act on.")
        self._set(**given, newest=bool(newest))

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """Scaled and shifted values."""
        keys = [self._key(layer, i) for i in index.tolist()]
        width = x.shape[-1]
        scale, shift = (
            torch.stack([self._row(values, key, layer, width, fill, x) for key in keys])
            for values, fill in ((self.scale, 1.0), (self.shift, 0.0))
        )
        changed = x * scale + shift
        if not self.newest:
            return changed
        last = torch.arange(x.shape[1], device=x.device) == x.shape[1] - 1
        return torch.where(last[:, None, None], changed, x)

    def _key(self, layer: LayerView, number: int) -> Key:
        if self.component == "residual":
            return (layer.stack, layer.index)
        return HeadId(layer.index, number, layer.stack)

    def _row(
        self, values: Mapping[Key, Tensor], key: Key, layer: LayerView, width: int, fill: float, x: Tensor
    ) -> Tensor:
        """[width] the numbers of one head or layer. Raises BadInput where they are of another model."""
        found = values.get(key)
        if found is None:
            return x.new_full((width,), fill)
        if found.shape not in ((1,), (width,)):
            raise BadInput(f"{self!r} has {found.numel()} numbers for {key}, layer {layer.index} has {width}.")
        return found.to(device=x.device, dtype=x.dtype).expand(width)

    def details(self) -> list[str]:
        """What is done, and when."""
        kinds = [name for name, values in (("scaled", self.scale), ("shifted", self.shift)) if values]
        return [" and ".join(kinds) or "left alone", *(["at the newest token"] if self.newest else [])]

    def options(self) -> dict[str, Any]:
        """Factors, shifts, and when they act."""
        return {"scale": self.scale, "shift": self.shift, "newest": self.newest}
