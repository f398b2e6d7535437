"""Where heads write, found by nudging copies that headatlas never touched; and zeros put in there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.families.truth import Call, relative, run


@dataclass(frozen=True)
class Writer:
    """The map that the heads of one attention call write through, by its path and which of its calls it is.

    exact: putting zeros in gives what an attention output of zeros gives, so nothing lies between that is not zero at
    zero. own_columns: a change of one head changes that head's columns and no others.
    """

    path: str
    occurrence: int
    n_heads: int
    width: int
    exact: bool
    own_columns: bool


def is_map(module: nn.Module) -> bool:
    """Whether it is a linear map with a weight matrix of its own."""
    weight = getattr(module, "weight", None)
    named = type(module).__name__
    return (
        isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding) and "Norm" not in named
    )


@torch.no_grad()
def attends_several_times(hf: nn.Module, given: dict[str, Tensor]) -> bool:
    """Whether one pass of an attention module makes several attention calls, so that its heads write a mix of them."""
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    _, seen = run(hf, given)
    handles = [module.register_forward_pre_hook(count) for module in {call.module for call in seen.calls}]
    try:
        run(hf, given)
    finally:
        for handle in handles:
            handle.remove()
    return passes < len(seen.calls)


@contextlib.contextmanager
def map_inputs(hf: nn.Module, zero: tuple[str, int] | None = None) -> Iterator[list[tuple[str, int, Tensor]]]:
    """(path, occurrence, input) of every linear map in the order of their calls; one of them gets zeros instead."""
    found: list[tuple[str, int, Tensor]] = []
    counts: dict[str, int] = {}
    handles = []

    def hook(path: str) -> Any:
        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not args or not isinstance(args[0], Tensor):
                return None
            occurrence = counts.get(path, 0)
            counts[path] = occurrence + 1
            found.append((path, occurrence, args[0]))
            return (torch.zeros_like(args[0]), *args[1:]) if (path, occurrence) == zero else None

        return before

    for path, module in hf.named_modules():
        if is_map(module):
            handles.append(module.register_forward_pre_hook(hook(path)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def writer(hf: nn.Module, given: dict[str, Tensor], call: Call) -> Writer | None:
    """Where the heads of a call write, found by nudging one head; None where no linear map takes their outputs."""
    n_heads, width = call.output.shape[-2], call.output.shape[-1]
    generator = torch.Generator().manual_seed(11)
    noise = torch.randn(call.output[..., -1, :].shape, generator=generator).to(call.output.dtype)

    def nudge(seen: Call) -> Tensor | None:
        if seen.number != call.number:
            return None
        changed = seen.output.clone()
        changed[..., -1, :] += noise * seen.output.abs().max()
        return changed

    with map_inputs(hf) as base:
        run(hf, given)
    with map_inputs(hf) as moved:
        run(hf, given, nudge)
    wide = n_heads * width
    candidates = [
        (path, occurrence, (after - before).abs().flatten(0, -2).amax(0))
        for (path, occurrence, before), (_, _, after) in zip(base, moved, strict=False)
        if before.shape == after.shape and before.shape[-1] == wide and not torch.equal(before, after)
    ]
    if not candidates:
        return None
    silent, _ = run(hf, given, lambda seen: torch.zeros_like(seen.output) if seen.number == call.number else None)
    for path, occurrence, columns in candidates[:4]:
        with map_inputs(hf, zero=(path, occurrence)):
            without, _ = run(hf, given)
        if relative(without, silent) < 1e-5:
            return Writer(path, occurrence, n_heads, width, True, bool((columns[: wide - width] == 0).all()))
    path, occurrence, columns = candidates[0]
    return Writer(path, occurrence, n_heads, width, False, bool((columns[: wide - width] == 0).all()))


def last_map(hf: nn.Module, given: dict[str, Tensor], module: nn.Module, n_heads: int) -> Writer | None:
    """Where the heads of a module that asks no interface write: the last linear map that runs inside it."""
    inside = {path for path, member in hf.named_modules() if any(member is part for part in module.modules())}
    with map_inputs(hf) as calls:
        run(hf, given)
    mine = [(path, occurrence, x) for path, occurrence, x in calls if path in inside]
    if not mine:
        return None
    path, occurrence, x = mine[-1]
    return Writer(path, occurrence, n_heads, x.shape[-1] // n_heads, True, True)


@contextlib.contextmanager
def zeroed(hf: nn.Module, where: Writer, head: int, position: int | None = None) -> Iterator[None]:
    """Zero one head's columns where it writes, at one position or everywhere, in every forward pass."""
    count = 0

    def begin(*_: Any) -> None:
        nonlocal count
        count = 0

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        nonlocal count
        mine, count = count == where.occurrence, count + 1
        if not mine:
            return None
        x = args[0].clone()
        columns = slice(head * where.width, (head + 1) * where.width)
        if position is None:
            x[..., columns] = 0
        else:
            x[:, position, columns] = 0
        return (x, *args[1:])

    handles = [hf.register_forward_pre_hook(begin), hf.get_submodule(where.path).register_forward_pre_hook(before)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
