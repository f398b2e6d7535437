"""Positions of tokens as users give them: read into one form, and held against the texts that they are to stand in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput

FROM_THE_START = "Positions count from 0, padding included; a batch names its last ones in batch.positions['end']."


def positions_given(positions: Any) -> Tensor:
    """[1, n] for all examples or [example, n] of one position, a list of them, or a list for each example (-1: none).

    Lists for each example may differ in length. Raises BadInput for anything that is no position, named with the reason.
    """
    given = positions if isinstance(positions, Tensor) else _tensor(positions)
    if given.dtype == torch.bool:
        raise BadInput("A mask of True and False is not read as positions.", "Give the positions: mask.nonzero().")
    if given.is_floating_point() or given.is_complex() or given.ndim > 2 or given.numel() == 0:
        kind = str(given.dtype).removeprefix("torch.")
        raise BadInput(f"Positions must be whole numbers [n] or [example, n], got {kind} {tuple(given.shape)}.")
    given = given.detach().clone().long()
    shared, lowest = given.ndim < 2, int(given.min())
    nowhere = not isinstance(positions, Tensor) and int(given.max()) < 0
    if lowest < (0 if shared else -1) or nowhere:
        raise BadInput(f"Position {lowest} is negative.", FROM_THE_START)
    return given.reshape(1, -1) if shared else given


def _tensor(positions: Any) -> Tensor:
    if isinstance(positions, str) or not isinstance(positions, Iterable):
        if isinstance(positions, str):
            raise BadInput(f"'{positions}' is not a position.", "Give whole numbers; batch.positions has named ones.")
        positions = [positions]
    parts = [np.asarray(one.cpu() if isinstance(one, Tensor) else one) for one in positions]
    if any(part.dtype == object or part.dtype.kind in "USO" or part.ndim > 1 for part in parts):
        raise BadInput("Positions must be whole numbers [n] or [example, n].", FROM_THE_START)
    if len({part.ndim for part in parts}) > 1:
        raise BadInput("Some positions are given alone and some in lists.", "Give one list for each example.")
    if any(part.size and part.dtype.kind not in "iub" for part in parts):
        kind = next(part.dtype for part in parts if part.dtype.kind not in "iub")
        raise BadInput(f"Positions must be whole numbers, got {kind}.", FROM_THE_START)
    if not parts or parts[0].ndim == 0:
        return torch.from_numpy(np.array(parts)) if parts else torch.zeros(0, dtype=torch.long)
    width = max(part.size for part in parts)
    if any(part.dtype.kind == "b" for part in parts):
        return torch.zeros(1, dtype=torch.bool)
    return torch.tensor([[*part.tolist(), *[-1] * (width - part.size)] for part in parts], dtype=torch.long)


def demand_real(positions: Tensor, mask: Tensor, who: str) -> None:
    """Raise BadInput where positions [1 or example, n] lie beyond the texts of mask [example, pos], or on their padding.

    Positions for all examples must be a token of one of them at least; those for each (-1: none) of their own.
    """
    positions, mask = positions.cpu(), mask.cpu()
    length = mask.shape[1]
    inside = (positions >= 0) & (positions < length)
    shared = len(positions) == 1
    real = mask.any(0, keepdim=True) if shared else mask
    if not shared and len(positions) != len(mask):
        return  # told where it acts
    there = inside & real.gather(1, positions.clamp(0, length - 1))
    wrong = (positions >= 0) & ~there
    if not bool(wrong.any()):
        return
    example, column = wrong.nonzero()[0].tolist()
    position = int(positions[example, column])
    whose = "every text" if shared and len(mask) > 1 else "the text" if len(mask) == 1 else f"example {example + 1}"
    row = real[example].nonzero().flatten()
    what = "is padding in" if position < length else "lies beyond"
    raise BadInput(
        f"{who}: position {position} {what} {whose}.", f"Its tokens are {int(row.min())} to {int(row.max())}, from 0."
    )


def token_stack(stack: str, component: str) -> str:
    """The stack whose tokens a component belongs to: cross-attention has the encoder's keys and values."""
    if stack == "cross":
        return "encoder" if component in ("k", "v") else "decoder"
    return stack
