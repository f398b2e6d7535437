"""Which parts of a model attend with a softmax of their own, seen in what they call, not in what they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# What a softmax over keys is written with; linear attention (delta rules, lightning, state spaces) calls none of them.
_SOFTMAXES = (
    torch.softmax,
    torch.Tensor.softmax,
    torch.nn.functional.softmax,
    torch.logsumexp,
    torch.Tensor.logsumexp,
    torch.nn.functional.scaled_dot_product_attention,
)


class SoftmaxWatch(TorchFunctionMode):
    """While it is entered, notes which of some modules run, and which of them call a softmax.

    ran: modules whose forward was called; with_softmax: those in whose forward a softmax was computed, by themselves or by
    what they called.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.modules = list(modules)
        self.ran: set[nn.Module] = set()
        self.with_softmax: set[nn.Module] = set()
        self._inside: list[nn.Module] = []
        self._handles: list[Any] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note a softmax, and compute what was asked for."""
        if func in _SOFTMAXES:
            self.with_softmax.update(self._inside)
        return func(*args, **(kwargs or {}))

    def __enter__(self) -> SoftmaxWatch:
        for module in self.modules:
            self._handles.append(module.register_forward_pre_hook(self._begin))
            self._handles.append(module.register_forward_hook(self._end, always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*(error or (None, None, None)))
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: nn.Module, _: tuple[Any, ...]) -> None:
        self.ran.add(module)
        self._inside.append(module)

    def _end(self, module: nn.Module, _: tuple[Any, ...], __: Any) -> None:
        self._inside.remove(module)
