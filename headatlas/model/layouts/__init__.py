"""Families whose attention does not ask transformers' interface: one file each makes them ask.

A layout names the attention classes it knows and replaces, on one module instance, the step that computes attention by
a call of `dispatch.enter`, lending that module an eager function of the model's own arithmetic. While no pass runs, the
instance does what its class does, so that plain use of the model is untouched.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from headatlas.errors import UnsupportedModel
from headatlas.registry import discover


@dataclass(frozen=True)
class Layout:
    """How the attention of one family comes to `dispatch.enter`.

    modules: class names of its attention modules. install(module): route its attention through `dispatch.enter`.
    path: "sdpa" or "eager", the transformers implementation that the model runs with and `dispatch` delegates to.
    """

    name: str
    modules: tuple[str, ...]
    install: Callable[[nn.Module], None]
    path: str = "eager"


# module -> the names of the attributes that its layout put on it
_ADDED: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


class StandIn:
    """A module with some parts replaced, on which a method of its class can run; the module itself stays as it is."""

    def __init__(self, module: nn.Module, **parts: Any) -> None:
        self._module = module
        self.__dict__.update(parts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def place(module: nn.Module, name: str, function: Callable[..., Any]) -> None:
    """Make `function(module, ...)` the method `name` of this one instance; doing it again changes nothing."""
    present = module.__dict__.get(name)
    if present is not None and getattr(present, "__func__", None) is not function:
        raise UnsupportedModel(
            f"{type(module).__name__}.{name} was already replaced on this model (offloaded or wrapped).",
            "Load the model on one device, without wrappers.",
        )
    module.__dict__[name] = types.MethodType(function, module)


def layouts() -> Mapping[str, Layout]:
    """Every layout by name."""
    return discover(__name__, Layout)


def layout_of(model: nn.Module) -> Layout | None:
    """The layout that knows one of the model's attention modules."""
    known = {kind: layout for layout in layouts().values() for kind in layout.modules}
    return next((known[type(module).__name__] for module in model.modules() if type(module).__name__ in known), None)


def install(model: nn.Module) -> list[nn.Module]:
    """Route each attention module that the model's layout knows through `dispatch.enter`; returns these modules."""
    layout = layout_of(model)
    if layout is None:
        return []
    found = [module for module in model.modules() if type(module).__name__ in layout.modules]
    for module in found:
        before = {name for name, value in vars(module).items() if not _is_ours(value)}  # a copy may have them already
        layout.install(module)
        _ADDED.setdefault(module, set()).update(vars(module).keys() - before)
    return found


def _is_ours(value: object) -> bool:
    """Whether an attribute is a method that a layout puts in its place."""
    return str(getattr(getattr(value, "__func__", None), "__module__", "")).startswith(f"{__name__}.")


def uninstall(model: nn.Module) -> None:
    """Take away what `install` put on a model's modules."""
    for module in model.modules():
        for name in _ADDED.pop(module, ()):
            module.__dict__.pop(name, None)
