"""Estimating the effect of every change from one gradient, so that only the promising ones need measuring.

Attribution patching (Nanda 2023; Syed et al. 2023): effect of replacing x by x' = (x' - x) . d metric / d x, to first
order. Two runs and one backward pass for all heads and positions. It only ranks; what is reported is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from headatlas.edits.base import token_stack
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.sweeps.memory_budget import peak_of, show_size
from headatlas.model import Model
from headatlas.model.runs.cached_forward import attend_again
from headatlas.model.runs.shared_pass import demand_gradients, leaves, slopes_of
from headatlas.ops import stats
from headatlas.ops.types import Array, LayerKey

if TYPE_CHECKING:
    from headatlas.edits.base import OnHeads
    from headatlas.methods.sweeps.plan import Sweep
    from headatlas.model.core.view import LayerView
    from headatlas.task import Batch, Metric


def estimate(model: Model, sweep: Sweep, memory: int) -> Array:
    """[head_set, position] estimated mean effect of each change of a sweep. Raises BadInput, UnsupportedModel."""
    return stats.mean(estimates(model, sweep, memory))


@torch.enable_grad()
def estimates(model: Model, sweep: Sweep, memory: int, *, exact_softmax: bool = False) -> Array:
    """[example, head_set, position] estimated effect of each change, NaN where an example has no such position.

    exact_softmax: for queries and keys, attention is computed again with the changed ones and the gradient is taken behind
    it, so that a saturated softmax does not hide them (AtP*, Kramar et al. 2024, section 3.1).
    Raises BadInput, UnsupportedModel.
    """
    if sweep.component not in ("q", "k", "v", "z"):
        raise BadInput(
            f"Triage cannot rank changes of '{sweep.component}'.", "Leave --triage out to measure all of them."
        )
    demand_gradients(model)
    n = len(sweep.batch)
    one, peak = peak_of(lambda: _piece(model, sweep, slice(0, 1), exact_softmax), model.hf.parameters())
    size = int(memory / (1.3 * peak))
    if size < 1:
        raise BadInput(
            f"A gradient of one example needs about {show_size(int(1.3 * peak))}, {show_size(memory)} are allowed.",
            "Allow more with --memory, use shorter prompts, or leave --triage out.",
        )
    rest = [_piece(model, sweep, slice(i, min(i + size, n)), exact_softmax) for i in range(1, n, size)]
    return np.concatenate([one, *rest])


def _piece(model: Model, sweep: Sweep, rows: slice, exact_softmax: bool) -> Array:
    """Estimated effects [example, head_set, position] of some examples, NaN where an example has no such position."""
    batch = sweep.batch.rows(rows)
    prompts = sweep.run_on.rows(rows) if sweep.run_on is not None else batch
    what = "z" if exact_softmax and sweep.component in ("q", "k") else sweep.component
    wanted = {(head.stack, head.layer) for head_set in sweep.head_sets for head in head_set}
    views, values = _watched(model, wanted, prompts, sweep.metric.positions(batch), what)
    slopes = _slopes(model, batch, sweep.metric, views, values)
    if exact_softmax and sweep.component in ("q", "k"):
        felt = [_felt_behind(model, sweep, views, slopes, rows, positions) for positions in _positions(sweep, rows)]
    else:
        felt = [_felt(model, sweep, views, values, slopes, rows)] * len(sweep.positions)
    # The views know their pass, which knows the watcher, which knows the views: let go, or the whole graph stays alive.
    views.clear()
    values.clear()
    return _gathered(sweep, felt, rows, everywhere=exact_softmax and sweep.component == "k")


@torch.enable_grad()
def slopes_in_z(
    model: Model,
    batch: Batch,
    metric: Metric,
    *,
    watch: Callable[[LayerView], None] | None = None,
    edits: Sequence[OnHeads] = (),
) -> dict[LayerKey, Tensor]:
    """(stack, layer) -> [example, position, head, d_value]: by how much the metric rises with z, to first order.

    watch: sees each layer of that run, without gradients. edits: in force in that run. Raises UnsupportedModel where no gradient can be taken.
    """
    demand_gradients(model)
    wanted = {(layer.stack, layer.index) for layer in model.layers}
    views, values = _watched(model, wanted, batch, metric.positions(batch), "z", watch, edits)
    found = _slopes(model, batch, metric, views, values)
    views.clear()
    values.clear()
    return found


def _slopes(
    model: Model, batch: Batch, metric: Metric, views: Mapping[LayerKey, LayerView], values: dict[str, Tensor]
) -> dict[LayerKey, Tensor]:
    """The slope of the metric in the watched tensor of each layer; takes the logits out of `values`."""
    score = metric.score(values.pop("logits").cpu(), batch)
    return slopes_of(model, score, {key: values[_name(key)] for key in views})


def _felt(
    model: Model,
    sweep: Sweep,
    views: Mapping[LayerKey, LayerView],
    values: Mapping[str, Tensor],
    slopes: Mapping[LayerKey, Tensor],
    rows: slice,
) -> dict[HeadId, Tensor]:
    """[example, token] first-order effect of each head's change, by head, or by the first head of a KV group."""
    make = sweep.prepare(rows)
    felt: dict[HeadId, Tensor] = {}
    for key, view in views.items():
        heads, x = model.layer(key[1], key[0]).heads, values[_name(key)].detach()
        changed = x
        for edit in make(heads, None):
            changed = edit(view, changed).detach()
        product = ((changed - x).float() * slopes[key].float()).sum(-1)
        product = (product if sweep.component == "z" else product.transpose(1, 2)).cpu()
        size = len(heads) // product.shape[2]
        felt |= {heads[i * size]: product[:, :, i] for i in range(product.shape[2])}
    return felt


@torch.no_grad()
def _felt_behind(
    model: Model,
    sweep: Sweep,
    views: Mapping[LayerKey, LayerView],
    slopes: Mapping[LayerKey, Tensor],
    rows: slice,
    positions: Tensor | None,
) -> dict[HeadId, Tensor]:
    """[example, query] effect of each head's queries or keys changed at `positions`, first-order behind its attention only."""
    make = sweep.prepare(rows)
    felt: dict[HeadId, Tensor] = {}
    for key, view in views.items():
        heads, x = model.layer(key[1], key[0]).heads, getattr(view, sweep.component).detach()
        changed = x
        for edit in make(heads, positions):
            changed = edit(view, changed)
        before, after = (attend_again(view, **{sweep.component: value}) for value in (x, changed))
        limit = 1e-3 if model.dtype in (torch.float32, torch.float64) else 3e-2
        if before.shape != view.z.shape or float((before - view.z).abs().max()) > limit * float(view.z.abs().max()):
            raise UnsupportedModel(
                f"Something lies between the attention of {type(view.attention.module).__name__} and its output projection, so "
                "it cannot be computed again for other queries or keys.",
                "Attribute z or v, or measure exactly (headatlas patch).",
            )
        product = ((after - before).float() * slopes[key].float()).sum(-1).cpu()
        felt |= {head: product[:, :, i] for i, head in enumerate(heads)}
    return felt


def _positions(sweep: Sweep, rows: slice) -> list[Tensor | None]:
    """Positions of each position [example or 1, n], or None for all, for some examples."""
    return [x if x is None or len(x) == 1 else x[rows] for x in sweep.positions.values()]


def _name(key: LayerKey) -> str:
    return f"{key[0]}.{key[1]}"


def _watched(
    model: Model,
    wanted: Collection[LayerKey],
    prompts: Batch,
    positions: Tensor,
    what: str,
    further: Callable[[LayerView], None] | None = None,
    edits: Sequence[OnHeads] = (),
) -> tuple[dict[LayerKey, LayerView], dict[str, Tensor]]:
    """Views and tensors of the component by layer, and the logits, all with gradients; `further` sees the layers without."""
    views: dict[LayerKey, LayerView] = {}
    values: dict[str, Tensor] = {}

    def watch(layer: LayerView) -> None:
        key = (layer.stack, layer.index)
        if key in wanted:
            views[key], values[_name(key)] = layer, getattr(layer, what)
        if further is not None:
            with torch.no_grad():
                further(layer)

    changes: list[Any] = [*leaves(model), *edits]
    values["logits"] = model.forward(prompts, watch=watch, edits=changes, logit_positions=positions, grad=True)
    return views, values


def _gathered(sweep: Sweep, felt: list[dict[HeadId, Tensor]], rows: slice, *, everywhere: bool) -> Array:
    """[example, head_set, position] sums over the tokens of each position (over all of them if `everywhere`), NaN where there are none."""
    batch = sweep.batch.rows(rows)
    found = np.zeros((len(batch), len(sweep.head_sets), len(sweep.positions)))
    for j, positions in enumerate(_positions(sweep, rows)):
        for i, head_set in enumerate(sweep.head_sets):
            mask = batch.side(token_stack(head_set[0].stack, sweep.component)).mask
            columns = torch.arange(mask.shape[1])
            share = mask if positions is None else mask & (columns[None, :, None] == positions[:, None, :]).any(-1)
            counted = mask if everywhere else share
            parts = [(felt[j][head] * counted).sum(1) for head in head_set if head in felt[j]]
            found[:, i, j] = torch.stack(parts).sum(0).double().numpy()
            found[~share.any(1).numpy(), i, j] = np.nan
    return found
