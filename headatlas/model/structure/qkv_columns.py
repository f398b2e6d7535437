"""Which columns of which projections become which numbers of q, k and v, found by sending numbered columns through.

Fused, interleaved, grouped, transposed: families store these weights in a dozen ways. Instead of knowing them, one short
run replaces what each projection puts out by the number of the column, written in digits over a few examples, and reads
the numbers off q, k and v as they reach the attention. Norms on the way hand their input on during that run, and the first position
is not turned by rotary embeddings, so that what arrives is a column times a factor (1, or a scale such as BART's).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.heads import HeadId
from headatlas.model.core.attention_layer import AttentionLayer, ColumnSource, Input, QKVColumns
from headatlas.model.core.linear_and_norm import is_affine, is_linear, is_norm
from headatlas.model.core.model import Model
from headatlas.model.core.view import LayerView
from headatlas.ops.types import LayerKey

BASE, DIGITS = 16, 5  # a digit is sent as SMALL * (1 + digit / 16), exact and well apart in half precision
SMALL, LARGE = 2.0**-6, 2.0**10  # below any clipping of queries, keys and values, and above it
EXAMPLES = DIGITS + 3  # SMALL itself, the digits, a mark of each number, LARGE


@dataclass(frozen=True)
class _Read:
    """An edit that changes nothing and keeps the first position of q, k or v of every layer."""

    heads: tuple[HeadId, ...]
    component: str
    found: dict[LayerKey, dict[str, Tensor]]

    @property
    def layers(self) -> frozenset[LayerKey]:
        return frozenset((head.stack, head.layer) for head in self.heads)

    def __call__(self, layer: LayerView, x: Tensor) -> Tensor:
        self.found.setdefault((layer.stack, layer.index), {})[self.component] = x[:, :, 0].float()
        return x


class _Numbers:
    """One attention module's part of the run: which projection's columns have which numbers, and what each one read."""

    def __init__(self) -> None:
        self.offsets: dict[nn.Module, int] = {}
        self.reads: dict[nn.Module, Tensor] = {}
        self.size = 0

    def replace(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook of a projection: its column numbers in place of its output."""
        width = output.shape[-1]
        if len(output) % EXAMPLES:
            return (
                output  # computes on something else than the examples (learned prompts), so no number of it is a column
            )
        if module not in self.offsets:
            self.offsets[module], self.size = self.size, self.size + width
        self.reads[module] = args[0]
        ids = torch.arange(width, device=output.device) + self.offsets[module]
        digits = torch.stack([ids // BASE**place % BASE for place in range(DIGITS)])
        one = torch.ones(1, width, device=output.device)
        marked = torch.cat([digits, _mark(ids)[None]])
        codes = torch.cat([SMALL * one, SMALL * (1 + marked / BASE), LARGE * one]).to(output.dtype)
        return codes.repeat_interleave(output.numel() // width // EXAMPLES, 0).view_as(output)

    def origin(self, x: Tensor) -> ColumnSource | None:
        """Read the numbers off x [digit, ...]; None where there are none."""
        factor = x[0] / SMALL
        sent = (x[1:-1] / x[0] - 1) * BASE
        digits, mark = sent[:-1], sent[-1]
        whole = digits.round()
        readable = ((digits - whole).abs() < 0.3) & (whole >= 0) & (whole < BASE) & (factor.abs() > 1e-6)
        powers = torch.tensor([BASE**place for place in range(DIGITS)], device=x.device)
        ids = torch.tensordot(powers, whole.nan_to_num(0).long(), dims=1)
        if not bool(readable.all()) or int(ids.max()) >= self.size:
            return None
        if bool(((mark - _mark(ids)).abs() > 0.3).any()):
            return None  # a sum of several columns, whose digits came out whole by chance
        modules = tuple(self.offsets)
        starts = torch.tensor([self.offsets[module] for module in modules], device=x.device)
        which = torch.searchsorted(starts, ids, right=True) - 1
        used = which.unique()
        clipped = bool(((x[-1] / (factor * LARGE) - 1).abs() > 1e-2).any())
        projections = tuple(modules[int(i)] for i in used)
        return ColumnSource(projections, torch.searchsorted(used, which), ids - starts[which], factor, clipped)

    def latent(self, read: Tensor) -> ColumnSource | None:
        """The origin of what a projection reads, where that is other projections' output; each number comes but once."""
        origin = self.origin(read.reshape(EXAMPLES, -1, read.shape[-1])[:, 0].float())
        return origin if origin is not None and origin.is_one_to_one() else None


def _mark(ids: Tensor) -> Tensor:
    """A digit for each number, as good as random: that of a mean of two numbers is not the mean of theirs."""
    return ids * 40503 // 64 % BASE


class _Norms:
    """What norms put out during the run, to see what a projection reads; within attention they hand their input on."""

    def __init__(self) -> None:
        self.outputs: list[tuple[nn.Module, Tensor]] = []

    def note(self, module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        """Forward hook of a norm outside attention."""
        if isinstance(output, Tensor):
            self.outputs.append((module, output))

    def skip(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Forward hook of a norm within attention; one of several tensors at once (ZAYA) is left as it is."""
        if not isinstance(output, Tensor):
            return output
        through = args[0] if args else output
        self.outputs.append((module, through))
        return through

    def before(self, x: Tensor) -> nn.Module | None:
        """The norm that put out this very tensor, or what it is a reshaping of."""
        return next(
            (norm for norm, y in reversed(self.outputs) if y.data_ptr() == x.data_ptr() and y.numel() == x.numel()),
            None,
        )


def _maps_within(
    home: nn.Module, outputs: Collection[nn.Module], vector_maps: Mapping[nn.Module, int]
) -> list[nn.Module]:
    """The outermost linear maps of an attention module, the output projection left out; a weight with its adapters is one."""
    found: list[nn.Module] = []
    covered: set[nn.Module] = {home}
    for part in home.modules():
        if part in covered:
            continue
        if part in outputs:
            covered.update(part.modules())
        elif is_linear(part) or (part in vector_maps and is_affine(part, vector_maps[part])):
            found.append(part)
            covered.update(part.modules())
    return found


def traced(model: Model, inputs: dict[str, Tensor], vector_maps: Mapping[nn.Module, int]) -> tuple[AttentionLayer, ...]:
    """The model's attention layers with their columns, where it can be read; one run of the model on copies of a sample example.

    vector_maps: modules around linear maps that take one tensor and give one -> the width of what they take.
    """
    copies = {name: value[:1].repeat(EXAMPLES, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
    numbers = {layer.module: _Numbers() for layer in model.layers}
    outputs = {layer.projection for layer in model.layers}
    norms, handles = _Norms(), []
    within = {part for module in numbers for part in module.modules()}
    for module in model.hf.modules():
        if is_norm(module):
            handles.append(module.register_forward_hook(norms.skip if module in within else norms.note))
    for home, own in numbers.items():
        for part in _maps_within(home, outputs, vector_maps):
            handles.append(part.register_forward_hook(own.replace))
    heads = tuple(head for layer in model.layers for head in layer.heads)
    found: dict[LayerKey, dict[str, Tensor]] = {}
    try:
        model.forward(copies, edits=[_Read(heads, what, found) for what in ("q", "k", "v")])
    finally:
        for handle in handles:
            handle.remove()
    result = []
    for layer in model.layers:
        own = numbers[layer.module]
        q, k, v = (own.origin(found[layer.stack, layer.index][what]) for what in ("q", "k", "v"))
        qkv = None
        if q is not None and k is not None and v is not None and q.is_one_to_one() and v.is_one_to_one():
            inputs_of = {part: Input(own.latent(read), norms.before(read)) for part, read in own.reads.items()}
            qkv = QKVColumns(q, k, v, inputs_of)
        result.append(replace(layer, qkv=qkv))
    return tuple(result)
