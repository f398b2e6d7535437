"""The one function that transformers calls instead of its own attention, and the pass that decides what happens there.

The function is registered once per process under two names, one per kind of mask that a model's own code wants
(`sdpa`: boolean or none, `eager`: additive). It finds its model through a weak map from the attention module and
delegates the computation to the model's own code; a model without a running pass behaves as if it was never touched.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from headatlas.errors import UnsupportedModel

if TYPE_CHECKING:
    pass

Attention = Callable[..., tuple[Tensor, Tensor | None]]

# attention module -> its model's current pass holder; both sides weak, so that neither keeps a model in memory.
_OWNERS: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Any]] = weakref.WeakKeyDictionary()


def own(module: nn.Module, holder: object) -> None:
    """Send calls of `module` to `holder.current` (a Pass or None) from now on."""
    _OWNERS[module] = weakref.ref(holder)


def _running(module: nn.Module) -> Any:
    """The pass that the module's model is in, or None."""
    holder = _OWNERS[module]() if module in _OWNERS else None
    return getattr(holder, "current", None)


def is_open(module: nn.Module) -> bool:
    """Whether a pass of the module's model is running; layouts leave their modules alone while none is."""
    return _running(module) is not None


# attention module -> its eager attention and its fast one, where a layout brings them (headatlas/model/layouts).
_EAGER: weakref.WeakKeyDictionary[nn.Module, Attention] = weakref.WeakKeyDictionary()
_KERNEL: weakref.WeakKeyDictionary[nn.Module, Attention] = weakref.WeakKeyDictionary()


def lend(module: nn.Module, eager: Attention, kernel: Attention | None = None) -> None:
    """Give a module that does not dispatch an eager attention: (module, q, k, v, mask, **kwargs) -> (z, weights).

    kernel: the same without weights, for a module that calls torch's attention in a way of its own.
    """
    _EAGER[module] = eager
    if kernel is not None:
        _KERNEL[module] = kernel


def eager_of(module: nn.Module) -> Attention | None:
    """The model's own eager attention: its layout's, or that of the file that defines the module."""
    found: Attention | None = _EAGER.get(module) or getattr(
        sys.modules[type(module).__module__], "eager_attention_forward", None
    )
    return found


def enter(
    path: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The doorway: hand an attention call to the running pass of the module's model, or compute it as the model would."""
    current = _running(module)
    if current is None:
        return delegate(path, module)(module, query, key, value, mask, **kwargs)
    result: tuple[Tensor, Tensor | None] = current.attend(module, query, key, value, mask, kwargs)
    return result


def delegate(path: str, module: nn.Module) -> Attention:
    """What computes this module's attention when nothing is edited."""
    if path == "sdpa":
        return _KERNEL.get(module, sdpa_attention_forward)
    found = eager_of(module)
    if found is None:
        raise UnsupportedModel(f"{type(module).__name__} has no eager attention of its own to delegate to.")
    return found


def _attend_sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    return enter("sdpa", module, query, key, value, attention_mask, **kwargs)


def _attend_eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    return enter("eager", module, query, key, value, attention_mask, **kwargs)


# Without the mask entry, transformers passes no mask at all and a causal model silently reads both ways.
NAMES = {"sdpa": "headatlas_sdpa", "eager": "headatlas_eager"}
AttentionInterface.register(NAMES["sdpa"], _attend_sdpa)
AttentionMaskInterface.register(NAMES["sdpa"], sdpa_mask)
AttentionInterface.register(NAMES["eager"], _attend_eager)
AttentionMaskInterface.register(NAMES["eager"], eager_mask)
