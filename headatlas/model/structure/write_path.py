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

from headatlas.errors import UnsupportedModel
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


def write_path(block: nn.Module, call: BlockCall, projection: nn.Module) -> tuple[Tensor | None, float]:
    """(gain [d_model] or None, factor): a write w enters the residual stream as factor * gain * w.

    call: the block's arguments. Where a norm takes the projection's output itself, w is what leaves that norm.
    Raises UnsupportedModel where the writes do not enter linearly.
    """
    plain = _run(block, call, projection, None)
    assert plain.written is not None
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
    raise UnsupportedModel(
        f"What the attention of {type(block).__name__} writes does not reach the block's output.",
        "Does the block use its attention?",
    )


def _fit(arrived: Tensor, moved: Tensor, rounding: Tensor, block: nn.Module) -> tuple[Tensor | None, float]:
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
        return None, 1.0
    if off(factor) <= tolerance:
        return None, factor
    flat, written = arrived.flatten(0, -2), moved.flatten(0, -2)
    gain = (flat * written).sum(0) / (written * written).sum(0)
    if bool(gain.isfinite().all()) and off(gain) <= tolerance:
        return gain, 1.0
    raise UnsupportedModel(
        f"What the attention of {type(block).__name__} writes does not enter the residual stream linearly.",
        "Contributions of its heads could not be computed.",
    )


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
