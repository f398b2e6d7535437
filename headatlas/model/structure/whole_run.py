"""What is kept of a run of the whole model, to try whether a run may start at a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.model import Model
from headatlas.model.core.view import LayerView
from headatlas.ops.types import LayerKey


@dataclass(frozen=True)
class WholeRun:
    """What a run of the whole model gave the layers at which a start is tried (`restarted`).

    entries: block -> the residual stream at its entry, [example, pos, d_model]. handed: (stack, layer) -> the tensors among
    its attention's further arguments, such as a position bias.
    """

    entries: dict[nn.Module, Tensor] = field(default_factory=dict)
    handed: dict[LayerKey, dict[str, Tensor]] = field(default_factory=dict)


def restarted(model: Model) -> tuple[AttentionLayer, ...]:
    """The layers of the main stack at which a start is tried: the middle one and the last."""
    stack = "decoder" if "decoder" in model.stacks else model.stacks[0]
    main = [layer for layer in model.layers if layer.stack == stack]
    return main[len(main) // 2], main[-1]


def keep_entries(entries: dict[nn.Module, Tensor]) -> Callable[..., None]:
    """Hook that keeps the residual stream that a block is given, where it is given one."""

    def keep(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = args[0] if args else kwargs.get("hidden_states")
        if isinstance(stream, Tensor) and stream.ndim == 3:
            entries[block] = stream

    return keep


def tensors_handed(layer: LayerView) -> dict[str, Tensor]:
    """The tensors among the further arguments of a layer's attention, by name."""
    return {name: value.detach() for name, value in layer.kwargs.items() if isinstance(value, Tensor)}
