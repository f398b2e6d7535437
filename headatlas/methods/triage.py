"""Guessing the effect of every change from one gradient, so that only the promising ones need measuring.

Attribution patching (Nanda 2023; Syed et al. 2023): effect of replacing x by x' = (x' - x) . d metric / d x, to first
order. Two runs and one backward pass for all heads and positions. It only ranks; what is reported is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.memory import peak_of, show_size
from headatlas.model import Model

if TYPE_CHECKING:
    from headatlas.methods.sweep import Sweep
    from headatlas.model.view import LayerView
    from headatlas.task import Batch

Array = NDArray[np.float64]
Place = tuple[str, int]


class _Leaf:
    """An edit that changes nothing, from which gradients are counted, so that weights need none."""

    site = "residual"
    heads: tuple[HeadId, ...] = ()

    def __init__(self, place: Place) -> None:
        self.layers = frozenset([place])

    def __call__(self, at: LayerView, x: Tensor) -> Tensor:
        return x.detach().requires_grad_(True)


def estimate(model: Model, sweep: Sweep, memory: int) -> Array:
    """[cell, spot] guessed mean effect of each change of a sweep. Raises BadInput, UnsupportedModel."""
    if sweep.site not in ("q", "k", "v", "z"):
        raise BadInput(f"Triage cannot rank changes of '{sweep.site}'.", "Leave --triage out to measure all of them.")
    n = len(sweep.batch)
    sums = np.zeros((len(sweep.cells), len(sweep.spots)))
    counts = np.zeros(len(sweep.spots))
    one, peak = peak_of(lambda: _piece(model, sweep, slice(0, 1)), model.hf.parameters())
    size = int(memory / (1.3 * peak))
    if size < 1:
        raise BadInput(
            f"A gradient of one example needs about {show_size(int(1.3 * peak))}, {show_size(memory)} are allowed.",
            "Allow more with --memory, use shorter prompts, or leave --triage out.",
        )
    pieces = [one] + [_piece(model, sweep, slice(i, min(i + size, n))) for i in range(1, n, size)]
    for found, present in pieces:
        sums += np.where(present[:, None], found, 0.0).sum(0)
        counts += present.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Array = sums / counts
    return result


def _piece(model: Model, sweep: Sweep, rows: slice) -> tuple[Array, NDArray[np.bool_]]:
    """Guessed effects [example, cell, spot] of some examples, and whether an example has the spot [example, spot]."""
    batch = sweep.batch.rows(rows)
    prompts = sweep.run_on.rows(rows) if sweep.run_on is not None else batch
    views, values = _watched(model, sweep, prompts, sweep.metric.positions(batch))
    score = sweep.metric.score(values.pop("logits").cpu(), batch).sum()
    if not score.requires_grad:
        raise UnsupportedModel(
            f"No gradient flows through {model.name} (quantised, or loaded for inference only).",
            "Leave --triage out, or load the model in float32, bfloat16 or float16.",
        )
    felt = _felt(model, sweep, views, values, score, rows)
    # The views know their pass, which knows the watcher, which knows the views: let go, or the whole graph stays alive.
    views.clear()
    values.clear()
    return _gathered(sweep, felt, rows)


def _felt(
    model: Model,
    sweep: Sweep,
    views: Mapping[Place, LayerView],
    values: Mapping[str, Tensor],
    score: Tensor,
    rows: slice,
) -> dict[HeadId, Tensor]:
    """[example, token] first-order effect of each head's change, by head, or by the first head of a KV group."""
    places = list(views)
    tensors = [values[_key(place)] for place in places]
    gradients = torch.autograd.grad(score, tensors, allow_unused=True)
    make = sweep.prepare(rows)
    felt: dict[HeadId, Tensor] = {}
    for place, x, gradient in zip(places, tensors, gradients, strict=True):
        heads = model.site(place[1], place[0]).heads
        if gradient is None:  # nothing after it reads this layer
            gradient = torch.zeros_like(x)
        changed = x.detach()
        for edit in make(heads, None):
            changed = edit(views[place], changed).detach()
        product = ((changed - x.detach()).float() * gradient.float()).sum(-1)
        product = (product if sweep.site == "z" else product.transpose(1, 2)).cpu()
        size = len(heads) // product.shape[2]
        felt |= {heads[i * size]: product[:, :, i] for i in range(product.shape[2])}
    return felt


def _key(place: Place) -> str:
    return f"{place[0]}.{place[1]}"


def _watched(
    model: Model, sweep: Sweep, prompts: Batch, positions: Tensor
) -> tuple[dict[Place, LayerView], dict[str, Tensor]]:
    """Views and tensors of the site by layer, and the logits, all with gradients."""
    wanted = {(head.stack, head.layer) for cell in sweep.cells for head in cell}
    views: dict[Place, LayerView] = {}
    values: dict[str, Tensor] = {}

    def watch(at: LayerView) -> None:
        place = (at.stack, at.layer)
        if place in wanted:
            views[place], values[_key(place)] = at, getattr(at, sweep.site)

    first = model.sites[0]
    leaf: list[Any] = [_Leaf((first.stack, first.layer))] if model.restarts and len(model.stacks) == 1 else []
    values["logits"] = model.forward(prompts, watch=watch, edits=leaf, logits_at=positions, grad=True)
    return views, values


def _gathered(sweep: Sweep, felt: Mapping[HeadId, Tensor], rows: slice) -> tuple[Array, NDArray[np.bool_]]:
    mask = sweep.batch.mask[rows]
    found = np.zeros((len(mask), len(sweep.cells), len(sweep.spots)))
    present = np.ones((len(mask), len(sweep.spots)), dtype=bool)
    columns = torch.arange(mask.shape[1])
    for j, positions in enumerate(sweep.spots.values()):
        share = mask
        if positions is not None:
            places = positions if len(positions) == 1 else positions[rows]
            share = mask & (columns[None, :, None] == places[:, None, :]).any(-1)
            present[:, j] = share.any(1).numpy()
        for i, cell in enumerate(sweep.cells):
            parts = [(felt[head] * share).sum(1) for head in cell if head in felt]
            found[:, i, j] = torch.stack(parts).sum(0).double().numpy()
    return found, present
