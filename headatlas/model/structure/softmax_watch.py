"""Which parts of a model attend with a softmax of their own, seen in what they call, not in what they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
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

Given = tuple[tuple[Any, ...], dict[str, Any]]  # what a module is called with


class SoftmaxWatch(TorchFunctionMode):
    """While it is entered, notes which of some modules run, and which of them call a softmax.

    ran: modules whose forward was called, with the arguments of the first call; with_softmax: those in whose forward a
    softmax was computed, by themselves or by what they called.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.modules = list(modules)
        self.ran: dict[nn.Module, Given] = {}
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
            self._handles.append(module.register_forward_pre_hook(self._begin, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._end, always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*(error or (None, None, None)))
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.ran.setdefault(module, (args, kwargs))
        self._inside.append(module)

    def _end(self, module: nn.Module, _: tuple[Any, ...], __: Any) -> None:
        self._inside.remove(module)


@torch.no_grad()
def mixes_tokens(module: nn.Module, given: Given) -> bool:
    """Whether what a module gives at one token depends on another token, as attention does.

    A softmax over blocks, experts or channels (Inkling 2 weighs earlier blocks so) stays within a token: with the first
    token's vectors changed in all that it is given, its outputs at later tokens stay what they were. Tokens lie along the
    first or the second axis (FSMT); examples, along the other, are never mixed. A module that cannot be run again counts as
    mixing.
    """
    args, kwargs = given

    def run(axis: int | None) -> list[Tensor]:
        def other(value: Any) -> Any:
            if axis is None or not isinstance(value, Tensor) or value.ndim != 3 or not value.is_floating_point():
                return value
            changed = value.clone()
            changed.select(axis, 0).neg_()
            return changed

        output = module(*map(other, args), **{name: other(value) for name, value in kwargs.items()})
        parts = output if isinstance(output, tuple | list) else (output,)
        return [part for part in parts if isinstance(part, Tensor) and part.ndim >= 3]

    try:
        plain, moved = run(None), {axis: run(axis) for axis in (0, 1)}
    except Exception:  # any module may stumble, over a cache that has grown for one
        return True
    return not plain or any(
        one.shape != two.shape
        or not torch.equal(one.narrow(axis, 1, one.shape[axis] - 1), two.narrow(axis, 1, one.shape[axis] - 1))
        for axis, outputs in moved.items()
        for one, two in zip(plain, outputs, strict=True)
    )
