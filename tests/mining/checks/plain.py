"""What the plain model of the toy gives, without anything of the package: the oracle of the checks that change outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.task import Batch
from tests.mining import echo


@contextlib.contextmanager
def replaced(model: Model, head: HeadId, new: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The head's z, [example, position, d], replaced in the plain model, without anything of the package."""
    part = slice(head.head * echo.HEAD, (head.head + 1) * echo.HEAD)

    def hook(module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = args[0].clone()
        z[:, :, part] = new(z[:, :, part])
        return (z,)

    handle = model.hf.model.layers[head.layer].self_attn.o_proj.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def z_of(model: Model, head: HeadId, batch: Batch) -> Tensor:
    seen: list[Tensor] = []
    with replaced(model, head, lambda z: seen.append(z) or z):
        model.hf(batch.tokens)
    return seen[0]


@torch.no_grad()
def logit_difference(model: Model, batch: Batch) -> np.ndarray:
    rows = torch.arange(len(batch))
    logits = model.hf(batch.tokens).logits[rows, batch.positions["end"]]
    return (logits[rows, batch.answer] - logits[rows, batch.wrong]).double().numpy()
