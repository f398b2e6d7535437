"""One forward pass: which edits act where, who watches, and what happens at each attention call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.dispatch import delegate
from headatlas.model.core.view import LayerView


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
