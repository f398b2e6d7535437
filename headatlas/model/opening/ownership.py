"""What opening changes on a transformers model that belongs to somebody else, and how it is put back."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import nn

from headatlas.model.core.model import Model

Choice = list[tuple[Any, Any]]  # each configuration with its choice of attention


class _Opened:
    """A module that is open: its owner's choice of attention, and the Models that use it."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.models: weakref.WeakSet[Model] = weakref.WeakSet()


_OPENED: weakref.WeakKeyDictionary[nn.Module, _Opened] = weakref.WeakKeyDictionary()


def attention_choice(hf: nn.Module) -> Choice:
    """Which attention each configuration of a model asks for."""
    configs = [vars(module).get("config") for module in hf.modules()]
    inner = [getattr(config, name, None) for config in configs for name in getattr(config, "sub_configs", {})]
    every: list[Any] = [*configs, *inner]
    found = {id(config): config for config in every if hasattr(config, "_attn_implementation_internal")}
    return [(config, config._attn_implementation_internal) for config in found.values()]


def owned(hf: nn.Module, model: Model, before: Choice) -> None:
    """Note that a Model uses a module. before: the owner's choice, where no other Model uses it yet."""
    _OPENED.setdefault(hf, _Opened(before)).models.add(model)


def give_back(hf: nn.Module, model: Model | None, before: Choice, undo: Callable[[nn.Module], None]) -> None:
    """End a Model's use of a module, or an attempt to open it (None); after the last one, all is as its owner had it.

    before: the owner's choice where the attempt was the first. undo: takes away what else was put on the module.
    """
    opened = _OPENED.get(hf)
    if opened is not None:
        if model is not None:
            opened.models.discard(model)
        if len(opened.models):
            return
        before = opened.choice
        del _OPENED[hf]
    undo(hf)
    for config, choice in before:
        config._attn_implementation_internal = choice
