"""Summarization of sentiment at a word without sentiment of its own: heads that write there, and heads that read from there.

Tigges et al. 2023: in a review, "this movie was" at the end depends on the word "movie", where earlier heads have written
the sentiment of the adjective and the verb. Each effect is one of activation patching with another review at that very
position, as a share of what happens to the metric when the whole review is exchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.edits import Swap
from headatlas.edits.collect import pieces
from headatlas.heads import HeadId
from headatlas.methods.direct_logit_attribution import demand_plain_sum
from headatlas.methods.sweeps.ablation import demand_aligned
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.methods.sweeps.run import metric_of
from headatlas.methods.sweeps.set_ablation import SetAblation, another
from headatlas.model import LayerView, Model
from headatlas.ops.memo import once
from headatlas.ops.types import Array, LayerKey
from headatlas.task import Batch, Metric, logit_difference

ByLayer = Mapping[LayerKey, Tensor]
MINIMUM_ATTENTION = 0.2  # share of its attention beyond the first token below which a head's effect counts as 0


class Activations(NamedTuple):
    """Activations of heads at two positions of a run, by layer.

    z_summary, z_end [example, head, d_value]: z at the summary word and at the last token. values, the same shape: v at the
    summary word. weight [example, head]: attention from the last token to the summary word. to_words, to_summary [example,
    head]: of the attention that is not on the first token, the share from the summary word to adjective and verb, and from
    the last token to the summary word.
    """

    z_summary: ByLayer
    z_end: ByLayer
    values: ByLayer
    weight: ByLayer
    to_words: ByLayer
    to_summary: ByLayer


class PatchingEffects(NamedTuple):
    """Effects as shares of the whole review's, [example, head]; 0 for heads that attend elsewhere.

    control: the effect of another review of the same kind in place of the opposite one; NaN where the batch has none.
    """

    effect: Array
    control: Array


def output_effects(model: Model, batch: Batch) -> PatchingEffects:
    """Effects of patching a head's output at the summary word, for heads that attend from there to adjective and verb."""
    return once(model, batch, "outputs at the summary", lambda: _output_effects(model, batch))


def value_effects(model: Model, batch: Batch) -> PatchingEffects:
    """Effects of patching the values at the summary word that a head reads at the last token, for heads that attend to it."""
    return once(model, batch, "values of the summary", lambda: _value_effects(model, batch))


def _output_effects(model: Model, batch: Batch) -> PatchingEffects:
    own, opposite = _activations(model, batch), _activations(model, _counterfactual(batch))

    def put(head: HeadId, order: Tensor | None) -> Swap:
        values = {place: x[:, None] for place, x in opposite.z_summary.items()}
        if order is not None:
            values = {place: x[order, None] for place, x in own.z_summary.items()}
        return Swap([head], values, positions=batch.positions["summary"][:, None])

    return _measured(model, batch, own.to_words, put)


def _value_effects(model: Model, batch: Batch) -> PatchingEffects:
    own, opposite = _activations(model, batch), _activations(model, _counterfactual(batch))

    def put(head: HeadId, order: Tensor | None) -> Swap:
        values = opposite.values if order is None else {place: x[order] for place, x in own.values.items()}
        return _with_summary_values([head], batch, own, values)

    return _measured(model, batch, own.to_summary, put)


def _with_summary_values(heads: Sequence[HeadId], batch: Batch, own: Activations, values: ByLayer) -> Swap:
    """Heads at the last token with other values v' at the summary word: z + A[end, summary] (v' - v)."""
    changed = {
        place: (own.z_end[place] + own.weight[place][..., None] * (values[place] - own.values[place]))[:, None]
        for place in {(head.stack, head.layer) for head in heads}
    }
    return Swap(heads, changed, positions=batch.positions["end"][:, None])


def values_resampled(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """Heads read at the summary word the values of the counterfactual review, and all other values as they are."""
    own, opposite = _activations(model, batch), _activations(model, _counterfactual(batch))
    return SetAblation(model, batch, metric, lambda heads: _with_summary_values(heads, batch, own, opposite.values))


def _measured(
    model: Model, batch: Batch, attention: ByLayer, put: Callable[[HeadId, Tensor | None], Swap]
) -> PatchingEffects:
    """put(head, None): the edit with the opposite review's values; put(head, order): with those of other examples."""
    attended = torch.cat([attention[layer.stack, layer.index] for layer in model.layers], 1).mean(0)
    chosen = (attended >= MINIMUM_ATTENTION).nonzero().flatten().tolist()
    same, replay = same_kind(batch), CachedRuns(model, batch, logit_difference)
    other = _counterfactual(batch)
    exchanged = once(model, batch, "reviews exchanged", lambda: metric_of(model, batch, logit_difference, run_on=other))
    whole = replay.clean - exchanged
    heads = [model.heads[i] for i in chosen]
    runs = [[put(head, order)] for order in (None, same.clamp(min=0)) for head in heads]
    falls = (replay.clean - replay.measure(runs)).reshape(2, len(chosen), len(batch)) / float(np.abs(whole).mean())
    effect, control = np.zeros((len(batch), len(model.heads))), np.zeros((len(batch), len(model.heads)))
    effect[:, chosen], control[:, chosen] = falls[0].T, falls[1].T
    control[(same < 0).numpy()] = np.nan
    return PatchingEffects(effect, control)


def _counterfactual(batch: Batch) -> Batch:
    assert batch.counterfactual is not None
    demand_aligned(batch, batch.counterfactual)
    return batch.counterfactual


def same_kind(batch: Batch) -> Tensor:
    """[example] the next review of the same wording and sentiment; -1 where there is none."""
    kinds = torch.stack([batch.labels["template"], batch.labels["positive"], batch.mask.sum(1)], 1)
    return another([kinds], lambda i, j: bool((kinds[i] == kinds[j]).all()))


def _activations(model: Model, batch: Batch) -> Activations:
    """What both kinds of heads are patched with, computed once for a batch."""
    return once(model, batch, "activations of the summary", lambda: _read_activations(model, batch))


@torch.no_grad()
def _read_activations(model: Model, batch: Batch) -> Activations:
    parts: list[Activations] = []

    def watch(part: Batch, layer: LayerView) -> None:
        each, place = torch.arange(len(part)), (layer.stack, layer.index)
        summary, end = (part.positions[name].to(layer.q.device) for name in ("summary", "end"))
        rows = layer.rows(torch.stack([summary, end], 1)).float()  # [example, head, 2, key]
        values = layer.repeat(layer.v).float()
        z = torch.stack([layer.z[each, summary], layer.z[each, end]], 2).float()  # [example, head, 2, d_value]
        demand_plain_sum(layer, torch.einsum("ehnk,ehkd->ehnd", rows, values), z)
        first = part.mask.float().argmax(1).to(layer.q.device)
        free = 1 - rows[each, :, :, first]  # [example, head, 2]
        words = [rows[each, :, 0, part.positions[name].to(layer.q.device)] for name in ("adjective", "verb")]
        weight = rows[each, :, 1, summary]
        shares = ((words[0] + words[1]) / free[..., 0], weight / free[..., 1])
        found = (z[:, :, 0], z[:, :, 1], values[each, :, summary], weight, *shares)
        for kept, value in zip(parts[-1], found, strict=True):
            kept[place] = value.clone()  # type: ignore[index]

    for part in pieces(batch):
        parts.append(Activations({}, {}, {}, {}, {}, {}))
        model.forward(part, watch=functools.partial(watch, part), logit_positions=torch.zeros(1, dtype=torch.long))
    return Activations(
        *({place: torch.cat([one[i][place] for one in parts]) for place in parts[0][i]} for i in range(6))
    )
