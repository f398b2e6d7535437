"""One forward pass: which edits act where, who watches, and what happens at each attention call.

The way of one attention layer through a pass:

1. The model's code calls its attention; `dispatch` hands the call to `Pass.attend`. A layer's view is made of the call's
   own q, k, v and mask.
2. Edits of q, k and v change the view's tensors. Without edits they are the very tensors that the model made.
3. z is computed by the model's own attention function on what the view holds. Only where a pattern is edited is it formed
   here, as pattern times values; the self-check has found that the model does just that, or edits of patterns are refused.
4. Between that and the output projection some families put a gate or a norm. The projection's input is therefore z as it
   is defined here: what heads write is linear in it. A pre-hook on the projection (`Pass.project`) applies edits of z and
   shows the view to the watcher. It returns None, which leaves the model's own tensor in place, unless z was edited or
   gradients are recorded, in which case what follows must hang on the tensor that the watcher saw.

Edits of the residual stream act before all that, at the block's entry (`hooks.edit_residual`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.dispatch import paused
from headatlas.model.core.pass_context import PassContext
from headatlas.model.core.view import LayerView
from headatlas.ops.types import LayerKey
from headatlas.renamed import warn


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
    def layers(self) -> frozenset[LayerKey]: ...  # noqa: D102
    def __call__(self, layer: LayerView, x: Tensor) -> Tensor: ...  # noqa: D102


def on_heads(edit: Edit, heads: Sequence[HeadId]) -> Edit:
    """An edit with the heads of a model in the place of its patterns; edits of one's own need not know any."""
    found: Edit = edit.on(heads) if hasattr(edit, "on") else edit
    return found


class Tap:
    """An edit that changes nothing and calls show((stack, layer), x) with the residual stream at the entry of blocks."""

    component = "residual"
    heads: tuple[HeadId, ...] = ()

    def __init__(self, layers: Iterable[LayerKey], show: Callable[[LayerKey, Tensor], None]) -> None:
        self.layers, self.show = frozenset(layers), show

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        """`x` itself."""
        self.show((layer.stack, layer.index), x)
        return x


@dataclass
class _Call:
    """How far the model's call in one thread has come.

    open_views: output projection -> the view of the attention call whose output is on its way there. attended: how often each
    module has attended in this call; before: in calls that ended.
    """

    open_views: dict[nn.Module, LayerView] = field(default_factory=dict)
    attended: Counter[nn.Module] = field(default_factory=Counter)
    before: Counter[nn.Module] = field(default_factory=Counter)


class Pass:
    """One forward pass: which edits act, who watches, and which call of which module belongs to which layer.

    Made by `Model.forward`; other kinds of passes override `view`, `attention_output` or `project`, and are run by
    `Model.run`. Edits that are in force for the plain model (`Model.edited`) are a pass as well, of as many calls as are made,
    which may be under way in several threads at once: what belongs to one call is kept by thread.
    """

    def __init__(
        self,
        layers: Sequence[AttentionLayer],
        context: PassContext,
        *,
        watch: Callable[[LayerView], None] | None = None,
        edits: Iterable[Edit] = (),
    ) -> None:
        self.context, self.watch = context, watch
        self._underway: dict[int, _Call] = {}  # thread -> its call
        self._layers: dict[nn.Module, list[AttentionLayer]] = {}
        for layer in layers:
            self._layers.setdefault(layer.module, []).append(layer)
        self._edits: dict[tuple[str, int, str], list[Edit]] = {}
        for edit in edits:
            for stack, index in edit.layers:
                self._edits.setdefault((stack, index, component_of(edit)), []).append(edit)

    @property
    def _call(self) -> _Call:
        """The call of the model that this thread is in."""
        thread = threading.get_ident()
        found = self._underway.get(thread)
        if found is None:
            found = self._underway[thread] = _Call()
        return found

    def begin(self, start: int, length: int | None) -> None:
        """A call of the model begins in this thread: of `length` tokens, behind `start` in a cache.

        One before it may have been given up halfway by an exception, and has no say in which layer comes first.
        """
        self.context.begin(start, length)
        call = self._call
        call.before.update(call.attended)
        call.attended.clear()
        call.open_views.clear()

    @property
    def open_views(self) -> dict[nn.Module, LayerView]:
        """Output projection -> the view of the attention call whose output is on its way there, in this thread."""
        return self._call.open_views

    def edits_of(self, layer: AttentionLayer, component: str) -> list[Edit]:
        """The edits of this pass at one component of one layer, in the order given."""
        return self._edits.get((layer.stack, layer.index, component), [])

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """One attention call: edits of q, k, v; the model's own computation; edits of the pattern."""
        layer = self._layer_of_call(module)
        view = self.view(layer, query, key, value, mask, kwargs)
        z = self.attention_output(view)
        self.open_views[layer.projection] = view
        return z, None

    def _layer_of_call(self, module: nn.Module) -> AttentionLayer:
        """Which layer a call belongs to: a module shared by several layers (ALBERT) is called once per layer, in order."""
        attended = self._call.attended
        count = attended[module]
        attended[module] += 1
        candidates = self._layers[module]
        return candidates[count % len(candidates)]

    def attends(self, module: nn.Module) -> bool:
        """Whether a module is that of a layer of this pass; others (a vision tower's) attend as if no pass ran."""
        return module in self._layers

    def demand_reached(self, left_out: Collection[AttentionLayer] = (), forwards: int | None = 1) -> None:
        """Raise UnsupportedModel unless each layer that is watched or edited was called as often as it should have been.

        left_out: layers that this pass does not come to. forwards: how many forward passes ran; None: at least one.
        A pass that edits nothing it was asked to edit would otherwise give the unedited numbers without a word.
        """
        calls_made = sum((call.before + call.attended for call in self._underway.values()), Counter[nn.Module]())
        for module, layers in self._layers.items():
            here = [layer for layer in layers if layer not in left_out]
            if not any(self._concerns(layer) for layer in here):
                continue
            calls, wanted = calls_made[module], len(here) * (1 if forwards is None else forwards)
            if calls == wanted or (forwards is None and calls > 0):
                continue
            raise UnsupportedModel(
                f"The attention of {here[0].stack} layer {here[0].index} ({type(module).__name__}) was reached {calls} times "
                f"in a forward pass instead of {wanted}, so what was watched or edited there is missing.",
                "Was the model compiled, wrapped or changed after it was opened? Open it again with headatlas.load.",
            )
        for layer in [view.attention for call in self._underway.values() for view in call.open_views.values()]:
            raise UnsupportedModel(
                f"The output projection of {layer.stack} layer {layer.index} ({layer.name}) was not called after its attention, so "
                "edits of its heads had no effect.",
                "Was the model changed (adapters, quantisation) after it was opened? Open it again with headatlas.load.",
            )

    def _concerns(self, layer: AttentionLayer) -> bool:
        """Whether anything is watched or edited in a layer's attention."""
        return self.watch is not None or any(self.edits_of(layer, what) for what in ("q", "k", "v", "pattern", "z"))

    def view(
        self,
        layer: AttentionLayer,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        kwargs: dict[str, Any],
    ) -> LayerView:
        """The view of one attention call."""
        return LayerView(layer, query, key, value, mask, kwargs, self.context)

    def attention_output(self, view: LayerView) -> Tensor:
        """[example, query, head, d_value] what the call gives, under edits of q, k, v and pattern. Raises UnsupportedModel."""
        layer = view.attention
        for edit in self.edits_of(layer, "q"):
            view.q = apply_edit(edit, view, view.q)
        for edit in self.edits_of(layer, "k"):
            view.k = apply_edit(edit, view, view.k)
        for edit in self.edits_of(layer, "v"):
            view.v = apply_edit(edit, view, view.v)
        pattern_edits = self.edits_of(layer, "pattern")
        if not pattern_edits:
            return view.compute()
        if not layer.pattern_editable:
            raise UnsupportedModel(
                f"{type(layer.module).__name__} does not form its output from its attention pattern alone, so patterns "
                "cannot be edited.",
                "Edit z instead (Zero, Mean, Scale ... act there by default).",
            )
        pattern = view.pattern
        for edit in pattern_edits:
            pattern = apply_edit(edit, view, pattern)
        view.set_pattern(pattern)
        return view.from_pattern(pattern)

    @staticmethod
    def _show(view: LayerView, watch: Callable[[LayerView], None]) -> None:
        """Let the watcher look. Raises BadInput where it writes into what it is shown, or puts something in its place."""
        given = _given(view)
        for name, value in given.items():
            view.shown(name, value)
        with paused():
            watch(view)
        view.demand_unwritten("The watcher")
        for name, value in _given(view).items():
            if value is not given[name]:
                raise BadInput(
                    f"The watcher put another tensor in the place of {name} of {view.stack} layer {view.index}; watchers change "
                    "nothing.",
                    "Give an edit (headatlas.Zero, Scale ...) in edits=.",
                )

    def project(self, projection: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Forward pre-hook of an output projection: edits of z, then the watcher."""
        view = self.open_views.pop(projection, None)
        if view is None:
            return None
        layer, flat = view.attention, args[0]
        edits = self.edits_of(layer, "z")
        view.z = flat.reshape(*flat.shape[:-1], layer.n_heads, -1)
        if self.watch is not None and not edits and not is_recording(flat):
            view.z = view.z.clone()  # writes past torch's count (`.data`, NumPy, inference mode) do not reach the model
        for edit in edits:
            view.z = apply_edit(edit, view, view.z)
        if self.watch is not None:
            self._show(view, self.watch)
        view.close()
        if edits or is_recording(flat):
            return (view.z.reshape(flat.shape), *args[1:])
        return None


def _given(view: LayerView) -> dict[str, Tensor]:
    """The tensors that a view was made of or for; where no z was formed yet, queries stand in its place."""
    return {"q": view.q, "k": view.k, "v": view.v, "z": view.z}


def component_of(edit: Edit) -> str:
    """What an edit changes; edits written for version 0.1 call it `site`."""
    if not hasattr(edit, "component") and hasattr(edit, "site"):
        warn(f"{type(edit).__name__}.site", f"{type(edit).__name__}.component")
        return str(edit.site)
    return edit.component


def apply_edit(edit: Edit, view: LayerView, x: Tensor) -> Tensor:
    """`x` as the edit changes it, in the type of `x`. Raises BadInput where it writes into `x`, or does not keep its shape.

    What an edit is given is the model's own tensor, which a cached run or a residual connection may hold as well.
    """
    version = None if x.is_inference() else x._version
    with paused():
        changed = edit(view, x)
    if version is not None and x._version != version:
        raise BadInput(
            f"{edit!r} wrote into the {edit.component} that it was given.",
            "Return a new tensor: x * 0, torch.where(...), or x.clone() to write into.",
        )
    if changed.shape != x.shape:
        raise BadInput(
            f"{edit!r} turned {edit.component} of shape {tuple(x.shape)} into {tuple(changed.shape)}.",
            "An edit keeps the shape.",
        )
    return changed.to(x.dtype)


def is_recording(value: object) -> bool:
    """Whether gradients are being recorded through `value`."""
    return torch.is_grad_enabled() and isinstance(value, Tensor) and value.requires_grad
