"""How what a head writes gets into the residual stream: straight, through a norm's gain, or scaled (Granite, Falcon-H1).

Nothing is read from configurations. A block is run again on the input it just had with the output of one attention
projection nudged, and the nudge is looked for further on: in what the next norm or linear map takes, or else in the
block's output.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.model.core.linear_and_norm import is_norm

BlockCall = tuple[tuple[Any, ...], dict[str, Any]]  # the arguments of a block


@dataclass
class _Trace:
    """What one run of a block showed: the projection's output, what modules took after it, and what a norm made of it.

    inputs: in the order in which modules were called, those that take the projection's output itself left out. normed: what
    a norm that takes that output gave.
    """

    written: Tensor | None = None
    inputs: list[Tensor] = field(default_factory=list)
    normed: Tensor | None = None
    output: Tensor | None = None


@dataclass(frozen=True)
class WritePath:
    """How writes enter the residual stream: as factor * gain [d_model] (None: 1) * write; indirect says why they do not."""

    gain: Tensor | None = None
    factor: float = 1.0
    indirect: str = ""


def write_path(block: nn.Module, call: BlockCall, projection: nn.Module) -> WritePath:
    """How what a projection writes enters the residual stream.

    call: the block's arguments. Where a norm takes the projection's output itself, a write is what leaves that norm.
    """
    plain = _run(block, call, projection, None)
    assert plain.written is not None
    if isinstance(plain.output, Tensor) and plain.output.ndim > 3:
        return WritePath(indirect=f"{type(block).__name__} shares what heads write among several residual streams")
    generator = torch.Generator().manual_seed(0)
    size = 16 * plain.written.float().std() + 1e-3  # well above the rounding of what it is added to
    nudge = torch.randn(plain.written.shape, generator=generator).to(plain.written.device) * size
    nudged = _run(block, call, projection, nudge.to(plain.written.dtype))
    assert nudged.written is not None
    before, after = plain.written, nudged.written
    if plain.normed is not None and nudged.normed is not None:
        before, after = plain.normed, nudged.normed
    moved = (after - before).float()
    later = zip(plain.inputs, nudged.inputs, strict=False)  # experts further on may be chosen otherwise
    for first, second in [*later, (plain.output, nudged.output)]:
        if first is None or second is None or first.numel() != moved.numel() or torch.equal(first, second):
            continue
        rounding = torch.finfo(first.dtype).eps * torch.maximum(first.abs(), second.abs()).float().view_as(moved)
        return _fit((second - first).float().view_as(moved), moved, rounding, block)
    return WritePath(indirect=_more_between(block))


def _fit(arrived: Tensor, moved: Tensor, rounding: Tensor, block: nn.Module) -> WritePath:
    """The factor, or else the gain per channel, that turns what was written into what arrived.

    rounding: how exactly each number that arrived is known; where a huge residual stream drowns the nudge, it is not used.
    """
    known = moved.abs() > 30 * rounding
    arrived, moved = arrived * known, moved * known
    tolerance = 1e-3 + float((rounding * known).norm() / arrived.norm())

    def off(guess: Tensor | float) -> float:
        return float((arrived - moved * guess).norm() / arrived.norm())

    factor = float((arrived * moved).sum() / (moved * moved).sum())
    if off(1.0) <= tolerance:
        return WritePath()
    if off(factor) <= tolerance:
        return WritePath(factor=factor)
    flat, written = arrived.flatten(0, -2), moved.flatten(0, -2)
    gain = (flat * written).sum(0) / (written * written).sum(0)
    if bool(gain.isfinite().all()) and off(gain) <= tolerance:
        return WritePath(gain)
    return WritePath(indirect=_more_between(block))


def _more_between(block: nn.Module) -> str:
    return f"More than a factor or a gain per channel lies between heads and residual stream of {type(block).__name__}"


def _run(block: nn.Module, call: BlockCall, projection: nn.Module, nudge: Tensor | None) -> _Trace:
    trace = _Trace()

    def write(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor | None:
        trace.written = output if nudge is None else output + nudge
        return trace.written

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        taken = args[0] if args else kwargs.get("hidden_states")
        # A view of the output (dropout that is off hands it on) says nothing of the way that it goes from there.
        if trace.written is not None and isinstance(taken, Tensor) and taken.data_ptr() != trace.written.data_ptr():
            trace.inputs.append(taken)

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if trace.written is not None and args and args[0] is trace.written and isinstance(output, Tensor):
            trace.normed = output

    handles = [projection.register_forward_hook(write)]
    for module in block.modules():
        if module is not projection:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        if is_norm(module):
            handles.append(module.register_forward_hook(after))
    try:
        output = block(*call[0], **call[1])
    finally:
        for handle in handles:
            handle.remove()
    trace.output = output[0] if isinstance(output, tuple) else output
    return trace
