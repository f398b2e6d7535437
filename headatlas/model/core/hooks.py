"""Hooks of one forward pass: what a cache holds, edits of the residual stream, chosen positions, blocks to skip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.forward_pass import Edit, Pass
from headatlas.model.core.view import LayerView


def count_past(current: Pass) -> Callable[..., None]:
    """Hook that notes how many tokens a cache already holds."""

    def count(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        past = kwargs.get("past_key_values")
        length = getattr(past, "get_seq_length", None)
        current.start = int(length()) if length is not None else 0

    return count


def enter(layer: AttentionLayer, edits: Sequence[Edit], current: Pass) -> Callable[..., Any]:
    """Hook that edits the residual stream on its way into a block."""

    def change(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        seen = hidden.unsqueeze(1)  # so that positions are where a view expects them
        view = LayerView(layer, seen, seen, seen, None, {}, current)
        for edit in edits:
            hidden = Pass._apply(edit, view, hidden)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    return change


def pick(positions: Tensor) -> Callable[..., Any]:
    """Hook that keeps only some positions of what goes into the unembedding."""

    def choose(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        index = positions.to(hidden.device).clamp(min=0)
        if index.ndim == 1:
            return (hidden[:, index], *args[1:])
        return (hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1])), *args[1:])

    return choose


def pass_through(n_returned: int) -> Callable[..., Any]:
    """A block that hands its input on, in the form in which the block returns its output."""

    def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return (hidden_states, *[None] * (n_returned - 1)) if n_returned else hidden_states

    return forward
