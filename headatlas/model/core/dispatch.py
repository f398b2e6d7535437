"""How attention calls of a transformers model come to a forward pass of ours, without changing the model.

How a call arrives, and why an unedited model gives the same bits:

1. A transformers model asks `AttentionInterface.get_interface` for its attention function at every call, by the name in
   its configuration and with its own file's eager function as the default. That one method is wrapped here, once per
   process. Nothing is registered under a name of ours and no configuration is changed: masks are those that the model
   makes for itself, and code that asks which implementation is in use (sparse attention in DeepSeek V3.2 and others
   applies its indexer's mask for "eager" and "sdpa" only) sees the user's own choice.
2. Whether anything is different is a matter of the running context (`contextvars`), not of the module: while no pass runs
   in this thread or task, the wrapped method returns the very function that it always returned. A pass therefore never
   reaches a plain call of the same model in another thread, nor one that a watcher makes (`paused`).
3. Within a pass the method returns a function that hands the call to the pass (the receiver), together with the function
   that the model would have called. A receiver that edits nothing calls it, with the very arguments (or a kernel that the
   self-check has found equal), so that watching a model does not change it.

Families whose attention does not ask come here by a layout (`headatlas/model/layouts`), which lends the family's own
arithmetic.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from headatlas.errors import UnsupportedModel

# (module, q, k, v, mask, **kwargs) -> (z [example, query, head, d_value], attention weights or None)
AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]
PATHS = ("sdpa", "eager")  # implementations whose calls can be looked into: masks are tensors, rows can be recomputed


class Receiver(Protocol):
    """Where attention calls go while it is active: a forward pass, or the probe of a model's structure."""

    def attends(self, module: nn.Module) -> bool:
        """Whether calls of the module are its business."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """What the call gives: z [example, query, head, d_value], and attention weights or None."""


@dataclass(eq=False)
class _Entry:
    """A receiver that was made active in a context, None for a pause, and whether its time is over.

    Contexts are copied (to tasks, to threads of `asyncio.to_thread`), and a generator may be closed in another one than it
    began in, so that an entry can stay behind in a context where nobody takes it out. `over` makes it nothing everywhere.
    """

    receiver: Receiver | None
    over: bool = False


# The receivers of this thread's, or this task's, attention calls, the innermost last.
_ACTIVE: ContextVar[tuple[_Entry, ...]] = ContextVar("headatlas_receivers", default=())
_BEGUN: ContextVar[tuple[object, ...]] = ContextVar("headatlas_begun_here", default=())
# attention module -> its eager attention and its fast one: those that it asked for, or that a layout brings.
_EAGER: weakref.WeakKeyDictionary[nn.Module, AttentionFunction] = weakref.WeakKeyDictionary()
_KERNEL: weakref.WeakKeyDictionary[nn.Module, AttentionFunction] = weakref.WeakKeyDictionary()


def active() -> Receiver | None:
    """The receiver of attention calls in this context, None while no pass runs here."""
    return next((entry.receiver for entry in reversed(_ACTIVE.get()) if not entry.over), None)


def depth() -> int:
    """How many receivers and pauses this context is inside of."""
    return sum(not entry.over for entry in _ACTIVE.get())


@contextlib.contextmanager
def receiving(receiver: Receiver | None) -> Iterator[None]:
    """Hand attention calls of this context to `receiver`; None: to nobody, as if no pass ran."""
    entry = _Entry(receiver)
    _ACTIVE.set((*_ACTIVE.get(), entry))
    try:
        yield
    finally:
        entry.over = True
        _ACTIVE.set(tuple(one for one in _ACTIVE.get() if not one.over))


@contextlib.contextmanager
def begun_here() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether the call that runs belongs to a pass begun directly in here, in this context.

    Calls in other threads do not, nor do those that a watcher of such a pass makes.
    """
    here, outside = object(), depth()
    _BEGUN.set((*_BEGUN.get(), here))
    try:
        yield lambda: here in _BEGUN.get() and depth() == outside + 1
    finally:
        _BEGUN.set(tuple(one for one in _BEGUN.get() if one is not here))


def paused() -> contextlib.AbstractContextManager[None]:
    """While a watcher or an edit of the user runs: what it computes with a model is not part of the pass."""
    return receiving(None)


def in_pass(module: nn.Module) -> bool:
    """Whether a pass that the module belongs to runs here; layouts leave their modules alone while none does."""
    receiver = active()
    return receiver is not None and receiver.attends(module)


def lend(module: nn.Module, eager: AttentionFunction, kernel: AttentionFunction | None = None) -> None:
    """Give a module that does not ask for its attention an eager one: (module, q, k, v, mask, **kwargs) -> (z, weights).

    kernel: the same without weights, for a module that calls torch's attention in a way of its own.
    """
    _EAGER[module] = eager
    if kernel is not None:
        _KERNEL[module] = kernel


def eager_of(module: nn.Module) -> AttentionFunction | None:
    """The model's own eager attention: its layout's, the one it asked for, or that of the file that defines the module."""
    found: AttentionFunction | None = _EAGER.get(module) or getattr(
        sys.modules[type(module).__module__], "eager_attention_forward", None
    )
    return found


def delegate(path: str, module: nn.Module) -> AttentionFunction:
    """What computes this module's attention when nothing is edited. Raises UnsupportedModel."""
    if path == "sdpa":
        return _KERNEL.get(module, sdpa_attention_forward)
    found = eager_of(module)
    if found is None:
        raise UnsupportedModel(f"{type(module).__name__} has no eager attention of its own to delegate to.")
    return found


def enter(
    path: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """An attention call of a layout's module: hand it to the pass that runs here, or compute it as the model would."""
    receiver = active()
    if receiver is None or not receiver.attends(module):
        return delegate(path, module)(module, query, key, value, mask, **kwargs)
    return receiver.attend(module, query, key, value, mask, kwargs)


_untouched = AttentionInterface.get_interface


@functools.wraps(_untouched)
def _get_interface(self: AttentionInterface, attn_implementation: str, default: AttentionFunction) -> AttentionFunction:
    function: AttentionFunction = _untouched(self, attn_implementation, default)
    receiver = active()
    if receiver is None:
        return function

    def hand_over(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        if not receiver.attends(module):
            return function(module, query, key, value, attention_mask, **kwargs)
        _EAGER[module] = default
        if attn_implementation == "sdpa":
            _KERNEL[module] = function
        elif function is not default:
            raise UnsupportedModel(
                f"The attention of {type(module).__name__} is computed by '{attn_implementation}', which cannot be looked into.",
                "Choose sdpa or eager: model.hf.set_attn_implementation('sdpa').",
            )
        return receiver.attend(module, query, key, value, attention_mask, kwargs)

    return hand_over


AttentionInterface.get_interface = _get_interface  # type: ignore[method-assign]
