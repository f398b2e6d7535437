"""Hooks of one forward pass: what a cache holds, edits of the residual stream, chosen positions, blocks to skip."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model.core.attention_layer import AttentionLayer
from headatlas.model.core.dispatch import Receiver, active, begun_here
from headatlas.model.core.forward_pass import Edit, Pass, apply_edit
from headatlas.model.core.pass_context import PassContext
from headatlas.model.core.unembedding import unembedding_of
from headatlas.model.core.view import LayerView

Args = tuple[Any, ...]  # what a module is called with; its own code decides what that is
Kwargs = dict[str, Any]


def call_begins(current: Pass) -> Callable[[nn.Module, Args, Kwargs], None]:
    """Hook that tells a pass that the model is called, with how many tokens behind how many in a cache."""

    def begin(_: nn.Module, args: Args, kwargs: Kwargs) -> None:
        past = kwargs.get("past_key_values")
        length = getattr(past, "get_seq_length", None)
        tokens = kwargs.get("input_ids", kwargs.get("inputs_embeds", args[0] if args else None))
        decoder = kwargs.get("decoder_input_ids")
        given = decoder if decoder is not None else tokens
        current.begin(
            int(length()) if length is not None else 0,
            given.shape[1] if isinstance(given, Tensor) and given.ndim > 1 else None,
        )

    return begin


def edit_residual(
    layer: AttentionLayer, edits: Sequence[Edit], context: PassContext
) -> Callable[[nn.Module, Args, Kwargs], tuple[Args, Kwargs]]:
    """Hook that edits the residual stream on its way into a block."""

    def change(block: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.ndim != 3 or (layer.indirect and hidden.shape[-1] != layer.output_weight().shape[-1]):
            raise UnsupportedModel(
                f"{type(block).__name__} is given a residual stream of shape {tuple(hidden.shape)}, not [example, pos, d_model]: "
                "this model keeps several, and what an edit of one of them means is not defined.",
                "Edit z, q, k, v or the pattern instead.",
            )
        stream = hidden.unsqueeze(1)  # [example, 1, pos, d_model], so that positions are where a view expects them
        view = LayerView(layer, stream, stream, stream, None, {}, context)
        for edit in edits:
            hidden = apply_edit(edit, view, hidden)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    return change


def replace_residual(residual: Tensor) -> Callable[[nn.Module, Args, Kwargs], tuple[Args, Kwargs]]:
    """Hook that gives a block another residual stream [example, pos, d_model] than the one it is called with."""

    def begin(_: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        return ((residual, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": residual})

    return begin


def keep_positions(positions: Tensor) -> Callable[[nn.Module, Args], Args]:
    """Hook that keeps only some positions, [n] or [example, n], of what goes into the unembedding."""

    def choose(_: nn.Module, args: Args) -> Args:
        hidden = args[0]
        index = positions.to(hidden.device).clamp(min=0)
        if index.ndim == 1:
            return (hidden[:, index], *args[1:])
        return (hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1])), *args[1:])

    return choose


@dataclass(frozen=True)
class Start:
    """Where a run starts: the blocks it skips, the block it enters, and the residual stream [example, pos, d_model] there.

    n_returned: how many things each block returns in a tuple, 0 for a bare tensor.
    """

    skipped: Sequence[nn.Module]
    block: nn.Module
    residual: Tensor
    n_returned: Mapping[nn.Module, int]


class Startable(Protocol):
    """A model in whose blocks a run may start."""

    restarts: bool
    block_returns: dict[nn.Module, int]

    @property
    def architecture(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    def decoder_blocks(self) -> list[nn.Module]: ...  # noqa: D102


def start(model: Startable, index: int, residual: Tensor) -> Start:
    """A run that enters block `index` with `residual` [example, pos, d_model]. Raises BadInput, UnsupportedModel."""
    if not model.restarts:
        raise UnsupportedModel(
            f"A run of {model.architecture} cannot start at a layer: its blocks are shared, or a block needs more of "
            "earlier ones than the residual stream.",
            "Run the whole model (leave start_at out).",
        )
    found = model.decoder_blocks()
    if not 0 <= index < len(found):
        raise BadInput(f"start_at layer {index} does not exist.", f"{model.name} has blocks 0 to {len(found) - 1}.")
    return Start(found[:index], found[index], residual, model.block_returns)


def left_out(layers: Sequence[AttentionLayer], inputs: Mapping[str, Any], begun: Start | None) -> set[AttentionLayer]:
    """The layers that a run on these inputs does not come to."""
    skipped = set() if begun is None else set(begun.skipped)
    encoded = inputs.get("encoder_outputs") is not None
    return {layer for layer in layers if layer.block in skipped or (encoded and layer.stack == "encoder")}


def only_in(receiver: Receiver, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that acts in the receiver's own context alone."""
    return _only(lambda: active() is receiver, hook)


def _only(acts: Callable[[], bool], hook: Callable[..., Any]) -> Callable[..., Any]:
    """Hooks hang on modules, which all threads and a watcher's own calls share; what they do is the business of one pass."""

    def run(*given: Any) -> Any:
        return hook(*given) if acts() else None

    return run


class OwnHooks:
    """Hooks on modules that act in the passes of one piece of code alone; see `own_hooks`."""

    def __init__(self, ours: Callable[[], bool], undo: contextlib.ExitStack) -> None:
        self._ours, self._undo = ours, undo

    def before(self, module: nn.Module, hook: Callable[[nn.Module, Args, Kwargs], Any]) -> None:
        """Call `hook` when the module is called; what it returns, positional arguments and keywords, takes the place of both."""
        handle = module.register_forward_pre_hook(_only(self._ours, hook), with_kwargs=True)
        self._undo.callback(handle.remove)

    def after(self, module: nn.Module, hook: Callable[[nn.Module, Args, Kwargs, Any], Any]) -> None:
        """Call `hook` with what the module gives; what it returns takes its place."""
        handle = module.register_forward_hook(_only(self._ours, hook), with_kwargs=True)
        self._undo.callback(handle.remove)


@contextlib.contextmanager
def own_hooks() -> Iterator[OwnHooks]:
    """Where hooks are put on modules for the passes that are begun in here, in this context; taken away on exit.

    Passes of other threads, calls of the plain model there, and what a watcher calls do not see them.
    """
    with begun_here() as ours, contextlib.ExitStack() as undo:
        yield OwnHooks(ours, undo)


@contextlib.contextmanager
def counted(running: set[Pass], current: Pass) -> Iterator[None]:
    """While this is entered, the pass is among those that run."""
    running.add(current)
    try:
        yield
    finally:
        running.discard(current)


@dataclass
class _Evaluation:
    """Who needs a model in evaluation mode, by thread, and the modules that were in training mode before."""

    threads: list[int]
    training: list[nn.Module]


_EVALUATED: dict[nn.Module, _Evaluation] = {}
_EVALUATED_LOCK = threading.Lock()
# transformers model -> its lock
_EXCLUSIVE: weakref.WeakKeyDictionary[nn.Module, contextlib.AbstractContextManager[Any]] = weakref.WeakKeyDictionary()


def exclusive(hf: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """While this is held, passes of all Models of a transformers model wait in other threads: what they put on it is one at a time."""
    return _EXCLUSIVE.setdefault(hf, threading.RLock())


@contextlib.contextmanager
def evaluating(hf: nn.Module) -> Iterator[None]:
    """Evaluation mode, uncompiled: no dropout, no gradient checkpointing; each module's own state is put back on exit.

    Passes may overlap (tasks, threads, edits in force while another pass runs): the last one out puts it back. What
    torch.compile made of a module knows nothing of a pass, and a graph traced within one would outlive it: while this is
    entered, compiled code of this process runs as it was written.
    """
    modules, thread = list(hf.modules()), threading.get_ident()
    eager = torch.compiler.set_stance("force_eager") if any(map(_compiled, modules)) else contextlib.nullcontext()
    with _EVALUATED_LOCK:
        found = _EVALUATED.setdefault(hf, _Evaluation([], []))
        found.threads.append(thread)
        training = [module for module in modules if module.training]
        found.training += training
        for module in training:
            module.training = False
    try:
        with eager:
            yield
    finally:
        with _EVALUATED_LOCK:
            if thread in found.threads:
                found.threads.remove(thread)
            _restore(hf)


def _restore(hf: nn.Module) -> None:
    found = _EVALUATED.get(hf)
    if found is not None and not found.threads:
        del _EVALUATED[hf]
        for module in found.training:
            module.training = True


def _in_a_forked_child() -> None:
    """Passes of other threads ended with the fork: what they held is put back. Those of this thread may go on."""
    for hf, found in list(_EVALUATED.items()):
        found.threads = [one for one in found.threads if one == threading.get_ident()]
        _restore(hf)
    _EXCLUSIVE.clear()  # who holds one of them may be a thread that is no more
    _EVALUATED_LOCK.release()


if hasattr(os, "register_at_fork"):  # no fork falls into the lines that hold the lock
    os.register_at_fork(
        before=_EVALUATED_LOCK.acquire,
        after_in_parent=_EVALUATED_LOCK.release,
        after_in_child=_in_a_forked_child,
    )


def _compiled(module: nn.Module) -> bool:
    """Whether torch.compile has been put on a module or its forward, in place or around it."""
    own = vars(module)
    return (
        own.get("_compiled_call_impl") is not None
        or hasattr(own.get("forward"), "_torchdynamo_orig_callable")
        or type(module).__name__ == "OptimizedModule"
    )


@contextlib.contextmanager
def installed(
    hf: nn.Module,
    layers: Sequence[AttentionLayer],
    current: Pass,
    start: Start | None,
    logit_positions: Tensor | None,
) -> Iterator[None]:
    """The hooks of a pass, taken away again on exit, also after an exception. Raises UnsupportedModel."""
    with contextlib.ExitStack() as undo:
        calls = only_in(current, call_begins(current))
        undo.callback(hf.register_forward_pre_hook(calls, with_kwargs=True).remove)
        if start is not None:
            undo.enter_context(skipped(start.skipped, start.n_returned, current))
            # Registered before the edits of the residual stream: hooks run in this order, and edits come on top of it.
            begin = only_in(current, replace_residual(start.residual))
            undo.callback(start.block.register_forward_pre_hook(begin, with_kwargs=True).remove)
        for projection in {layer.projection for layer in layers}:
            undo.callback(projection.register_forward_pre_hook(only_in(current, current.project)).remove)
        for layer in layers:
            edits = current.edits_of(layer, "residual")
            if not edits:
                continue
            if layer.block is None:
                raise UnsupportedModel(
                    f"{type(hf).__name__} shares its blocks between layers or keeps them in no list, so the residual "
                    "stream of one layer cannot be reached.",
                    "Edit z, q, k, v or the pattern instead.",
                )
            change = only_in(current, edit_residual(layer, edits, current.context))
            undo.callback(layer.block.register_forward_pre_hook(change, with_kwargs=True).remove)
        head = unembedding_of(hf)
        if logit_positions is not None and head is not None:
            undo.callback(head.register_forward_pre_hook(only_in(current, keep_positions(logit_positions))).remove)
        yield


@contextlib.contextmanager
def skipped(blocks: Sequence[nn.Module], n_returned: Mapping[nn.Module, int], receiver: Receiver) -> Iterator[None]:
    """Let blocks hand on what they are given, for a run that starts behind them. Raises UnsupportedModel for wrapped blocks."""
    replaced: list[tuple[nn.Module, Any]] = []
    try:
        for block in blocks:
            before = block.__dict__.get("forward")
            # Another pass's is no obstacle: that of a watcher's caller, or of a thread that ended with a fork.
            # What accelerate put there moves a block's weights to where they are used; a block that is skipped needs none.
            moved = getattr(block, "_hf_hook", None) is not None
            if before is not None and not isinstance(before, _PassThrough) and not moved:
                raise UnsupportedModel(
                    "This model's blocks are wrapped (compiled, say), so they cannot be skipped.",
                    "Load it on one device.",
                )
            block.__dict__["forward"] = _PassThrough(block, n_returned.get(block, 0), receiver, before)
            replaced.append((block, before))
        yield
    finally:
        for block, before in replaced:
            if before is None:
                del block.__dict__["forward"]
            else:
                block.__dict__["forward"] = before


@dataclass(frozen=True)
class _PassThrough:
    """A block that in the receiver's context hands its input on, in the form in which the block returns its output."""

    block: nn.Module
    n_returned: int
    receiver: Receiver
    before: Callable[..., Any] | None  # the same of another pass, whose calls this one leaves alone

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The input, or what the block makes of it."""
        if active() is not self.receiver:
            if self.before is not None:
                return self.before(*args, **kwargs)
            return type(self.block).forward(self.block, *args, **kwargs)
        hidden_states = args[0] if args else kwargs["hidden_states"]
        return (hidden_states, *[None] * (self.n_returned - 1)) if self.n_returned else hidden_states
