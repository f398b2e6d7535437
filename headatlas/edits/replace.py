"""Edits that put something else in the place of what heads compute: nothing, or another run's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from headatlas.edits.base import Heads, Layers, OnHeads, Positions, Where, fit, named_on, parse_positions
from headatlas.edits.collect import collect
from headatlas.errors import BadInput
from headatlas.ops.types import LayerKey

if TYPE_CHECKING:
    from headatlas.model import Model
    from headatlas.model.core.view import LayerView
    from headatlas.task import Batch

Values = Mapping[LayerKey, Tensor]


class Zero(OnHeads):
    """Set what heads compute to zero (zero ablation)."""

    by_pattern = True

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)


class Stored(OnHeads):
    """Base of edits that hold values by (stack, layer)."""

    values: Values

    def __init__(self, heads: Heads | Layers, values: Values, **where: Unpack[Where]) -> None:
        super().__init__(heads, **where)
        missing = sorted(f"{stack}:{layer}" for stack, layer in self.layers - set(values))
        if missing:
            raise BadInput(
                f"{type(self).__name__} has no values for layer {', '.join(missing)}.", "Collect them there too."
            )
        self._set(values={key: values[key] for key in sorted(self.layers)})

    def options(self) -> dict[str, Any]:
        """The values."""
        return {"values": self.values}

    def _value(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """The layer's values for the heads in `index`, the heads second to last."""
        value = self.values[layer.stack, layer.index].to(x.device)
        if int(index.max()) >= value.shape[-2]:
            raise BadInput(f"{self!r} holds values of {value.shape[-2]} heads; layer {layer.index} has more.")
        value = value.index_select(-2, index)
        if self.component == "pattern":
            return self._keys(layer, value)
        if value.shape[-1] != x.shape[-1]:
            raise BadInput(
                f"{self!r} holds {value.shape[-1]} numbers a head, layer {layer.index} of this model has {x.shape[-1]}."
            )
        return value

    @staticmethod
    def _keys(layer: LayerView, value: Tensor) -> Tensor:
        """Attention weights for the keys that there are now; to keys that the stored rows did not have: none."""
        keys = layer.key_positions[0]
        known = value[..., keys.clamp(max=value.shape[-1] - 1)]
        return torch.where(keys < value.shape[-1], known, 0.0)

    def _at_tokens(self, layer: LayerView, value: Tensor, n_examples: int) -> Tensor:
        """Pick from [example or 1, position, ...] the layer's tokens: [example or 1, token, ...]."""
        tokens = self.token_positions(layer)
        touched = self._touched(layer, n_examples)
        used = tokens if touched is None else torch.where(touched, tokens, -1)
        if int(used.max()) >= value.shape[1]:
            raise BadInput(
                f"{self!r} holds values of {value.shape[1]} positions; position {int(used.max())} has none.",
                f"Say where it acts: positions=range({value.shape[1]}).",
            )
        tokens = tokens.clamp(0, value.shape[1] - 1)
        examples = max(len(value), len(tokens))
        tokens, value = tokens.expand(examples, -1), value.expand(examples, *value.shape[1:])
        return value.gather(1, tokens[..., None, None].expand(-1, -1, *value.shape[2:]))


class Resample(Stored):
    """Replace what heads compute by what they computed on other prompts, position by position (resample ablation).

    values: (stack, layer) -> [example, position, head, width] of the other run.
    """

    @classmethod
    def over(
        cls, model: Model, heads: Heads | Layers, other: Batch, *, order: Tensor | None = None, **where: Unpack[Where]
    ) -> Resample:
        """From a run on `other`; order [example]: which of its examples each example takes, else the same row."""
        heads = named_on(model, heads, where)
        values = collect(model, other, OnHeads(heads, **where))
        return cls(heads, values if order is None else {key: x[order] for key, x in values.items()}, **where)

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """The other run's values."""
        value = self._value(layer, x, index)
        fit(len(value), len(x), repr(self))
        return self._at_tokens(layer, value, len(x)).expand(x.shape)

    def rows(self, index: Tensor | slice) -> OnHeads:
        """See OnHeads.rows."""
        return super().rows(index).with_values(values={key: value[index] for key, value in self.values.items()})


class Swap(Stored):
    """Put what heads computed at chosen positions of another run at chosen positions of this one (activation patching).

    values: (stack, layer) -> [example, n, head, width], for the n `positions` of each example.
    """

    def __init__(self, heads: Heads | Layers, values: Values, **where: Unpack[Where]) -> None:
        super().__init__(heads, values, **where)
        if self.positions is None:
            raise BadInput("Swap needs positions.", "Write positions=..., or use Resample for all positions.")
        if any(len(set(row)) < len(row) for row in ([p for p in at if p >= 0] for at in self.positions.tolist())):
            raise BadInput("Swap was given a position twice, with two values for it.", "Name each position once.")
        for value in self.values.values():
            if value.shape[1] != self.positions.shape[1]:
                raise BadInput(f"Swap has {self.positions.shape[1]} positions and values for {value.shape[1]}.")

    @classmethod
    def over(
        cls, model: Model, heads: Heads | Layers, other: Batch, *, source: Positions = None, **where: Unpack[Where]
    ) -> Swap:
        """From a run on `other`: its positions `source` (the same as `positions` where left out) go to `positions`."""
        to = parse_positions(where.get("positions"))
        came = parse_positions(source) if source is not None else to
        if to is None or came is None:
            raise BadInput("Swap needs positions.", "Write positions=..., or use Resample for all positions.")
        if to.shape[1] != came.shape[1]:
            raise BadInput(f"{came.shape[1]} positions cannot be put at {to.shape[1]}.", "Give as many of both.")
        heads = named_on(model, heads, where)
        return cls(heads, collect(model, other, OnHeads(heads, **where), positions=came), **where)

    def change(self, layer: LayerView, x: Tensor, index: Tensor) -> Tensor:
        """The other run's values, each at its position."""
        value = self._value(layer, x, index)
        fit(len(value), len(x), repr(self))
        tokens = self.token_positions(layer)
        assert self.positions is not None
        which = (tokens[:, :, None] == self.positions.to(x.device)[:, None, :]).long().argmax(-1)
        which = which.expand(len(x), -1)
        value = value.expand(len(x), *value.shape[1:])
        return value.gather(1, which[..., None, None].expand(-1, -1, *value.shape[2:]))

    def rows(self, index: Tensor | slice) -> OnHeads:
        """See OnHeads.rows."""
        return super().rows(index).with_values(values={key: value[index] for key, value in self.values.items()})
