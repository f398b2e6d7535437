"""Edits of where heads look: knocking out attention between tokens, sharpening or flattening it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headatlas.edits.base import Heads, OnHeads, Positions, among, parse_positions
from headatlas.errors import BadInput

if TYPE_CHECKING:
    from headatlas.model.core.view import LayerView


class Block(OnHeads):
    """Keep heads from attending from some tokens to others (attention knock-out).

    queries: positions that must not look, all where left out; keys: positions not to be looked at. Both [n] or
    [example, n] as in other edits. renormalise: the rest of the row grows to make up for it, as if the keys had been
    masked before the softmax (a row with no key left becomes zero); otherwise what is taken away is lost.
    """

    keys: Tensor
    renormalise: bool
    by_pattern = True
    components = ("pattern",)

    def __init__(self, heads: Heads, keys: Positions, queries: Positions = None, renormalise: bool = True) -> None:
        super().__init__(heads, component="pattern", positions=queries)
        blocked = parse_positions(keys)
        if blocked is None:
            raise BadInput(
                "Block needs the keys not to be looked at.", "Write keys=[...]; Zero removes a head as a whole."
            )
        self._set(keys=blocked, renormalise=bool(renormalise))

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """Rows with the keys gone."""
        gone = among(layer.key_positions, self.keys, len(x), repr(self))[:, None, None, :]
        left = x.float().masked_fill(gone, 0.0)
        if not self.renormalise:
            return left
        # What a row sums to after masking before the softmax: 1 - blocked, counted from what is left, since the
        # difference would lose all digits where nearly everything is blocked. A learned sink keeps its part.
        rest = left.sum(-1, keepdim=True) + sink_of(layer, x)
        return torch.where(rest > 0, left / rest.clamp(min=torch.finfo(torch.float32).tiny), 0.0)

    def rows(self, index: Tensor | slice) -> OnHeads:
        """See OnHeads.rows."""
        other = super().rows(index)
        return other if len(self.keys) == 1 else other.with_values(keys=self.keys[index])

    def details(self) -> list[str]:
        """Which keys, and what becomes of the rest."""
        keys = self.keys[0].tolist() if len(self.keys) == 1 else f"{self.keys.shape[1]} an example"
        return [f"keys {keys}", "renormalised" if self.renormalise else "not renormalised"]

    def options(self) -> dict[str, Any]:
        """Keys and renormalisation."""
        return {"keys": self.keys, "renormalise": self.renormalise}


class Attend(OnHeads):
    """Set where heads look: at the queries, the same attention to each of the keys, and none to anything else.

    keys, queries: as in `Block`; -1 for fewer keys of an example. Keys that a query cannot see stay at nothing (those to which it
    gives a weight of 0); a row that sees none of them becomes zero.
    """

    keys: Tensor
    by_pattern = True
    components = ("pattern",)

    def __init__(self, heads: Heads, keys: Positions, queries: Positions = None) -> None:
        super().__init__(heads, component="pattern", positions=queries)
        looked_at = parse_positions(keys)
        if looked_at is None:
            raise BadInput("Attend needs the keys to be looked at.", "Write keys=[...].")
        self._set(keys=looked_at)

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """Rows with the keys alone."""
        wanted = among(layer.key_positions, self.keys, len(x), repr(self))[:, None, None, :]
        chosen = (wanted & (x > 0)).float()
        return chosen / chosen.sum(-1, keepdim=True).clamp(min=1.0)

    def rows(self, index: Tensor | slice) -> OnHeads:
        """See OnHeads.rows."""
        other = super().rows(index)
        return other if len(self.keys) == 1 else other.with_values(keys=self.keys[index])

    def details(self) -> list[str]:
        """Which keys."""
        return [f"keys {self.keys[0].tolist()}" if len(self.keys) == 1 else f"keys {self.keys.shape[1]} an example"]

    def options(self) -> dict[str, Any]:
        """The keys."""
        return {"keys": self.keys}


class Temper(OnHeads):
    """Divide attention scores by a temperature: below 1 heads look more sharply, above 1 more evenly.

    Made from the attention weights, whose powers keep their ratios: weight^(1/t), normalised again, a sink included.
    """

    temperature: float
    by_pattern = True
    components = ("pattern",)

    def __init__(self, heads: Heads, temperature: float, positions: Positions = None) -> None:
        super().__init__(heads, component="pattern", positions=positions)
        temperature = self._number("temperature", temperature, finite=False)
        if not temperature > 0:
            raise BadInput(f"A temperature of {temperature} is not possible.", "Choose one above 0; 1 changes nothing.")
        self._set(temperature=temperature)

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """Tempered rows."""
        weights, sink = x.float(), sink_of(layer, x)
        # Relative to the largest, so that powers neither overflow nor vanish.
        top = torch.maximum(weights.amax(-1, keepdim=True), sink).clamp(min=torch.finfo(torch.float32).tiny)
        power = 1.0 / self.temperature
        weights, sink = (weights / top) ** power, (sink / top) ** power
        total = weights.sum(-1, keepdim=True) + sink
        return torch.where(total > 0, weights / total.clamp(min=torch.finfo(torch.float32).tiny), 0.0)

    def details(self) -> list[str]:
        """The temperature."""
        return [f"t = {self.temperature:g}"]

    def options(self) -> dict[str, Any]:
        """The temperature."""
        return {"temperature": self.temperature}


def sink_of(layer: LayerView, rows: Tensor) -> Tensor:
    """What a learned sink takes of each row [..., 1]; exactly zero where there is none."""
    if not layer.has_sink:
        return torch.zeros_like(rows[..., :1], dtype=torch.float32)
    return (1.0 - rows.float().sum(-1, keepdim=True)).clamp(min=0.0)
