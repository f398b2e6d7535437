"""What is true of a model, found on copies that headatlas never touched. Nothing here imports headatlas.

Attention is watched where transformers hands out attention functions (`AttentionInterface.get_interface`); the map that
a layer's heads write through is found by nudging; everything else is a plain forward pass with a hook.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface

ATTENTIONS = (functional.softmax, torch.softmax, Tensor.softmax, functional.scaled_dot_product_attention)
Change = Callable[["Call"], Tensor | None]


@dataclass
class Call:
    """One attention call: q, k, v [example, head, pos, width], output [example, query, head, width], weights or None."""

    module: nn.Module
    number: int  # which call of this forward pass
    q: Tensor
    k: Tensor
    v: Tensor
    output: Tensor
    weights: Tensor | None

    @property
    def values(self) -> Tensor:
        """v per query head."""
        return self.v.repeat_interleave(self.q.shape[1] // self.v.shape[1], 1)

    @property
    def pattern(self) -> Tensor | None:
        """What values are multiplied by: the weights, times the factor on the output where there is one (a sink, in Granite)."""
        if self.weights is None or self.weights.shape[-1] != self.values.shape[-2]:
            return self.weights
        plain = (self.weights.to(self.v.dtype) @ self.values).transpose(1, 2)
        if plain.shape != self.output.shape:
            return self.weights
        factor = (self.output * plain).sum(-1) / (plain * plain).sum(-1)
        if relative(plain * factor[..., None], self.output) > 1e-5 or bool((factor > 1 - 1e-5).all()):
            return self.weights
        return self.weights * factor.transpose(1, 2)[..., None]


@dataclass
class Seen:
    """What a watched pass showed: the calls, and the shapes of attention computed without asking the interface."""

    calls: list[Call] = field(default_factory=list)
    outside: list[tuple[int, ...]] = field(default_factory=list)


class _Outside(TorchFunctionMode):
    """Notes softmaxes over keys that happen while no function of the interface runs."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen, self.depth = seen, 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in ATTENTIONS and self.depth == 0 and args and args[0].ndim >= 3 and min(args[0].shape[-2:]) >= 8:
            self.seen.outside.append(tuple(args[0].shape))
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def watched(change: Change | None = None) -> Iterator[Seen]:
    """Watch every attention call of what runs inside; `change(call)` may give another output for one."""
    seen = Seen()
    outside = _Outside(seen)
    original = AttentionInterface.get_interface

    def get_interface(self: Any, implementation: str, default: Any) -> Any:
        function = original(self, implementation, default)

        def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
            outside.depth += 1
            try:
                output, weights = function(module, query, key, value, *args, **kwargs)
            finally:
                outside.depth -= 1
            call = Call(module, len(seen.calls), query, key, value, output, weights)
            seen.calls.append(call)
            changed = change(call) if change is not None else None
            return (output if changed is None else changed), weights

        return attend

    AttentionInterface.get_interface = get_interface  # type: ignore[method-assign]
    try:
        with outside:
            yield seen
    finally:
        AttentionInterface.get_interface = original  # type: ignore[method-assign]


def read(output: Any) -> Tensor:
    logits = getattr(output, "logits", None)
    return logits if logits is not None else output.last_hidden_state


@torch.no_grad()
def run(hf: nn.Module, given: dict[str, Tensor], change: Change | None = None) -> tuple[Tensor, Seen]:
    """Logits or hidden states of a plain pass without a cache, and what was seen."""
    with watched(change) as seen:
        output = hf(**given, **without_cache(hf))
    return read(output), seen


def without_cache(hf: nn.Module) -> dict[str, bool]:
    names = inspect.signature(hf.forward).parameters
    return {"use_cache": False} if "use_cache" in names or "past_key_values" in names else {}


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest expected number; infinite where shapes differ or numbers are no numbers."""
    found, expected = found.float(), expected.float()
    if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - expected).abs().max() / (expected.abs().max() + 1e-9))


def looking_at_first(number: int, head: int) -> Change:
    """A change of one call's output as if a head looked at the first key alone."""

    def change(call: Call) -> Tensor | None:
        if call.number != number:
            return None
        output = call.output.clone()
        output[:, :, head] = call.values[:, head, :1].to(output.dtype)
        return output

    return change


def formed_from_weights(call: Call) -> bool:
    """Whether a call's output is its weights times its values, so that an edited pattern has a meaning."""
    if call.pattern is None:
        return False
    again = (call.pattern.to(call.v.dtype) @ call.values).transpose(1, 2)
    return again.shape == call.output.shape and relative(again, call.output) < 1e-4


@contextlib.contextmanager
def added(hf: nn.Module, block: str, vector: Tensor) -> Iterator[None]:
    """Add a vector to what enters a block."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (args[0] + vector, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + vector}

    handle = hf.get_submodule(block).register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def width_at(hf: nn.Module, given: dict[str, Tensor], block: str) -> int:
    """Width of what enters a block."""
    widths: list[int] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        widths.append((args[0] if args else kwargs["hidden_states"]).shape[-1])

    handle = hf.get_submodule(block).register_forward_pre_hook(before, with_kwargs=True)
    try:
        hf(**given, **without_cache(hf))
    finally:
        handle.remove()
    return widths[0]


def block_of(hf: nn.Module, path: str) -> str | None:
    """Path of the block that a module lies in: a member of the outermost list around it."""
    parts = path.split(".")
    for depth in range(1, len(parts)):
        if isinstance(hf.get_submodule(".".join(parts[:depth])), nn.ModuleList):
            return ".".join(parts[: depth + 1])
    return None


def eager_copy(hf: nn.Module) -> nn.Module:
    """A copy that computes attention by its own code; only such a one gives attention weights."""
    other = copy.deepcopy(hf)
    other.set_attn_implementation("eager")
    if other.config._attn_implementation != "eager":  # the setter leaves alone what it thinks cannot switch (Falcon)
        other.config._attn_implementation = "eager"
    return other


def stack_of(call: Call, given: dict[str, Tensor]) -> str:
    """encoder, decoder, cross or joint, by the lengths of queries and keys of an encoder-decoder's call."""
    own, other = given["decoder_input_ids"].shape[1], given["input_ids"].shape[1]
    lengths = (call.q.shape[2], call.k.shape[2])
    return {(other, other): "encoder", (own, own): "decoder", (own, other): "cross"}.get(lengths, "joint")
