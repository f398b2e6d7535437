"""The one function that transformers calls instead of its own attention, and the pass that decides what happens there.

The function is registered once per process under two names, one per kind of mask that a model's own code wants
(`sdpa`: boolean or none, `eager`: additive). It finds its model through a weak map from the attention module and
delegates the computation to the model's own code; a model without a running pass behaves as if it was never touched.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId

if TYPE_CHECKING:
    from headatlas.model.core.view import LayerView
    from headatlas.model.structure.attention_layers import AttentionLayer

Attention = Callable[..., tuple[Tensor, Tensor | None]]

# attention module -> its model's current pass holder; both sides weak, so that neither keeps a model in memory.
_OWNERS: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Any]] = weakref.WeakKeyDictionary()


class Edit(Protocol):
    """A change to one quantity of one layer; `headatlas.edits` has the kinds. Returns a new tensor.

    component: q, k, v [example, head, pos, d_head] (k, v by KV group), pattern [example, head, query, key],
    z [example, pos, head, d_head] (the input of the output projection), residual [example, pos, d_model]
    (the block's input). `layers` are the (stack, layer) pairs it acts on.
    """

    @property
    def component(self) -> str: ...  # noqa: D102
    @property
    def heads(self) -> tuple[HeadId, ...]: ...  # noqa: D102
    @property
    def layers(self) -> frozenset[tuple[str, int]]: ...  # noqa: D102
    def __call__(self, layer: LayerView, x: Tensor) -> Tensor: ...  # noqa: D102


class Tap:
    """An edit that changes nothing and calls show((stack, layer), x) with the residual stream at the entry of blocks."""

    component = "residual"
    heads: tuple[HeadId, ...] = ()

    def __init__(self, places: Iterable[tuple[str, int]], show: Callable[[tuple[str, int], Tensor], None]) -> None:
        self.layers, self.show = frozenset(places), show

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        """`x` itself."""
        self.show((layer.stack, layer.index), x)
        return x


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


class Pass:
    """One forward pass: which edits act, who watches, and which call of which module belongs to which layer."""

    def __init__(
        self,
        layers: Sequence[AttentionLayer],
        *,
        view_type: type[LayerView],
        path: str,
        valid: dict[str, Tensor | None],
        watch: Callable[[LayerView], None] | None,
        edits: Iterable[Edit],
        unembedding: Any,
        fast: bool,
        block_bytes: int,
    ) -> None:
        self.view_type = view_type
        self.path, self.watch, self.valid, self.unembedding = path, watch, valid, unembedding
        self.fast, self.block_bytes = fast, block_bytes
        self.start = 0  # tokens that earlier passes of a cached generation have read
        self.columns: Tensor | None = None  # where the queries stand in the whole sequence, if not side by side
        self._queue: dict[nn.Module, list[AttentionLayer]] = {}
        for attention in layers:
            self._queue.setdefault(attention.module, []).append(attention)
        self._edits: dict[tuple[str, int, str], list[Edit]] = {}
        for edit in edits:
            for stack, layer in edit.layers:
                self._edits.setdefault((stack, layer, edit.component), []).append(edit)
        self._fired: dict[nn.Module, int] = {}
        self._open: dict[nn.Module, LayerView] = {}

    def of(self, layer: AttentionLayer, what: str) -> list[Edit]:
        """The edits of this pass at one quantity of one layer."""
        return self._edits.get((layer.stack, layer.index, what), [])

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """One attention call: edits of q, k, v; the model's own computation; edits of the pattern."""
        count = self._fired.get(module, 0)
        self._fired[module] = count + 1
        candidates = self._queue.get(module)
        if not candidates:
            return delegate(self.path, module)(module, query, key, value, mask, **kwargs)
        layer = candidates[
            count % len(candidates)
        ]  # a module shared by several layers (ALBERT) is called once per layer
        view = self.look(layer, query, key, value, mask, kwargs)
        for what in ("q", "k", "v"):
            for edit in self.of(layer, what):
                setattr(view, what, self._apply(edit, view, getattr(view, what)))
        pattern_edits = self.of(layer, "pattern")
        if pattern_edits and not layer.pattern_editable:
            raise UnsupportedModel(
                f"{type(module).__name__} does not form its output from its attention pattern alone, so patterns cannot be edited.",
                "Edit z instead (Zero, Mean, Scale ... act there by default).",
            )
        if pattern_edits:
            pattern = view.pattern
            for edit in pattern_edits:
                pattern = self._apply(edit, view, pattern)
            view.set_pattern(pattern)
            z = view.from_pattern(pattern)
        else:
            z = view.compute()
        self._open[layer.projection] = view
        return z, None

    def start_of(self, stack: str) -> int:
        """Which token of the whole sequence this pass begins with; an encoder is not run piece by piece."""
        return 0 if stack == "encoder" else self.start

    def look(
        self,
        layer: AttentionLayer,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        kwargs: dict[str, Any],
    ) -> LayerView:
        """The view of one attention call."""
        return self.view_type(layer, query, key, value, mask, kwargs, self)

    def project(self, projection: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Forward pre-hook of an output projection: edits of z, then the watcher."""
        view = self._open.pop(projection, None)
        if view is None:
            return None
        layer, flat = view.attention, args[0]
        z = flat.reshape(*flat.shape[:-1], layer.n_heads, -1)
        edits = self.of(layer, "z")
        view.z = z
        for edit in edits:
            view.z = self._apply(edit, view, view.z)
        if self.watch is not None:
            self.watch(view)
        view.close()
        # While gradients are recorded, what follows must come from the z that the watcher saw.
        if edits or is_recording(flat):
            return (view.z.reshape(flat.shape), *args[1:])
        return None

    @staticmethod
    def _apply(edit: Edit, view: LayerView, x: Tensor) -> Tensor:
        changed = edit(view, x)
        if changed.shape != x.shape:
            raise BadInput(
                f"{edit!r} turned {edit.component} of shape {tuple(x.shape)} into {tuple(changed.shape)}.",
                "An edit keeps the shape.",
            )
        return changed.to(x.dtype)


def is_recording(value: Any) -> bool:
    """Whether gradients are being recorded through `value`."""
    return torch.is_grad_enabled() and isinstance(value, Tensor) and value.requires_grad
