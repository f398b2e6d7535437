"""The one function that transformers calls instead of its own attention, and who receives such a call.

How a call arrives, and why an unedited model gives the same bits:

1. A transformers model looks its attention function up by name (`config._attn_implementation`) at every call, and a mask
   function by the same name. Both are registered here once per process, under one name per kind of mask that a model's
   own code wants (`sdpa`: boolean or none, `eager`: additive). The mask functions are transformers' own, so the mask that
   arrives is the one that the model would have had.
2. The function belongs to no model. It finds the call's receiver (a forward pass, or the probe that looks at a model
   when it is loaded) through a weak map from the attention module to its model.
3. While no pass runs there is no receiver: `delegate` names the very function that the model would have called, and it is
   called with the very arguments. A receiver that edits nothing ends there too (or in a kernel that the self-check has
   found equal), so that watching a model does not change it.

Families whose attention does not ask by name come here by a layout (`headatlas/model/layouts`), which lends `delegate`
the family's own arithmetic.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from headatlas.errors import UnsupportedModel

# (module, q, k, v, mask, **kwargs) -> (z [example, query, head, d_value], attention weights or None)
AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


class Receiver(Protocol):
    """Where attention calls go while it is a model's `current`: a forward pass, or the probe of a model's structure."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """What the call gives: z [example, query, head, d_value], and attention weights or None."""


class Holder(Protocol):
    """What has a current receiver: a `Model`."""

    current: Receiver | None


# attention module -> its model. Both sides are weak: a strong value would keep every model in memory for good.
_OWNERS: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Holder]] = weakref.WeakKeyDictionary()
# attention module -> its eager attention and its fast one, where a layout brings them.
_EAGER: weakref.WeakKeyDictionary[nn.Module, AttentionFunction] = weakref.WeakKeyDictionary()
_KERNEL: weakref.WeakKeyDictionary[nn.Module, AttentionFunction] = weakref.WeakKeyDictionary()


def own(module: nn.Module, holder: Holder) -> None:
    """Send calls of `module` to `holder.current` from now on."""
    _OWNERS[module] = weakref.ref(holder)


def _receiver(module: nn.Module) -> Receiver | None:
    """The pass that the module's model is in, or None."""
    owner = _OWNERS.get(module)
    holder = owner() if owner is not None else None
    return holder.current if holder is not None else None


def in_pass(module: nn.Module) -> bool:
    """Whether a pass of the module's model is running; layouts leave their modules alone while none is."""
    return _receiver(module) is not None


def lend(module: nn.Module, eager: AttentionFunction, kernel: AttentionFunction | None = None) -> None:
    """Give a module that does not dispatch an eager attention: (module, q, k, v, mask, **kwargs) -> (z, weights).

    kernel: the same without weights, for a module that calls torch's attention in a way of its own.
    """
    _EAGER[module] = eager
    if kernel is not None:
        _KERNEL[module] = kernel


def eager_of(module: nn.Module) -> AttentionFunction | None:
    """The model's own eager attention: its layout's, or that of the file that defines the module."""
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
    """An attention call: hand it to the running pass of the module's model, or compute it as the model would."""
    receiver = _receiver(module)
    if receiver is None:
        return delegate(path, module)(module, query, key, value, mask, **kwargs)
    return receiver.attend(module, query, key, value, mask, kwargs)


def _attend_sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    return enter("sdpa", module, query, key, value, attention_mask, **kwargs)


def _attend_eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    return enter("eager", module, query, key, value, attention_mask, **kwargs)


# Without the mask entry, transformers passes no mask at all, and a causal model silently becomes bidirectional.
NAMES = {"sdpa": "headatlas_sdpa", "eager": "headatlas_eager"}
AttentionInterface.register(NAMES["sdpa"], _attend_sdpa)
AttentionMaskInterface.register(NAMES["sdpa"], sdpa_mask)
AttentionInterface.register(NAMES["eager"], _attend_eager)
AttentionMaskInterface.register(NAMES["eager"], eager_mask)
