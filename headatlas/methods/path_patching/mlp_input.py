"""Which part of a block is its MLP, found by what the parts read, and how what they read is taken and replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.model import Model
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.hooks import Args, Kwargs, own_hooks
from headatlas.model.core.linear_and_norm import is_norm

_PROBE = 4  # tokens; their ids are above those that mean padding or the start


def candidates(layer: AttentionLayer) -> tuple[nn.Module, ...]:
    """The parts of a layer's block that own matrices and do not attend: its MLP, or the maps that make it up."""
    assert layer.block is not None
    found = []
    for part in layer.block.children():
        attends = any(module is layer.module or module is layer.projection for module in part.modules())
        if not attends and not is_norm(part) and any(parameter.ndim >= 2 for parameter in part.parameters()):
            found.append(part)
    return tuple(found)


def entries(model: Model) -> Mapping[int, Sequence[nn.Module]]:
    """layer -> the parts that read what enters the MLP: the first that runs, and those that read the same tensor.

    Raises UnsupportedModel for a block without one.
    """
    calls: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        calls.append((module, first_tensor(args, kwargs)))

    parts = {layer.index: candidates(layer) for layer in model.layers}
    with own_hooks() as hooks:
        for part in (part for members in parts.values() for part in members):
            hooks.before(part, note)
        model.forward(torch.arange(_PROBE)[None] + 5, logit_positions=torch.zeros(1, dtype=torch.long))
    found = {}
    for layer, members in parts.items():
        mine = [(module, x) for module, x in calls if module in members]
        if not mine:
            raise UnsupportedModel(
                f"Block {layer} of {model.architecture} has no MLP that could be found.",
                "Let MLPs be recomputed, and choose receivers that are heads or the logits.",
            )
        # Tensors of one reading are the same object: the maps of an MLP that follow read something else.
        found[layer] = [module for module, x in mine if x is mine[0][1]]
    return found


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The first tensor among the arguments of a module."""
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def with_first(args: tuple[Any, ...], kwargs: Mapping[str, Any], x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a module with `x` in place of the first tensor."""
    old = first_tensor(args, kwargs)
    swap: Callable[[Any], Any] = lambda value: x.to(old.dtype).reshape(old.shape) if value is old else value  # noqa: E731
    return tuple(swap(value) for value in args), {name: swap(value) for name, value in kwargs.items()}
