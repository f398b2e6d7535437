"""Families whose attention does not ask transformers' interface: one file each brings them to the doorway.

A layout names the attention classes it knows and replaces, on one module instance, the inner step that computes
attention by a call of `doorway.enter`, lending that module an eager function of the model's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from headatlas.registry import discover


@dataclass(frozen=True)
class Layout:
    """How one family comes to the doorway.

    modules: class names of its attention modules. install(module): route its attention through `doorway.enter`.
    """

    name: str
    modules: tuple[str, ...]
    install: Callable[[nn.Module], None]


def layouts() -> Mapping[str, Layout]:
    """Every layout by name."""
    return discover(__name__, Layout)


def install(model: nn.Module) -> list[nn.Module]:
    """Bring each attention module that a layout knows to the doorway; returns these modules."""
    known = {kind: layout for layout in layouts().values() for kind in layout.modules}
    found = [module for module in model.modules() if type(module).__name__ in known]
    for module in found:
        known[type(module).__name__].install(module)
    return found
