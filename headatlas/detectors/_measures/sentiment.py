"""How the mood of a text passes through a word that sums it up: what heads bring there, and what heads take from there.

Tigges et al. 2023: in a review, "this movie was" at the end is read off the word "movie", where earlier heads have put the
mood of the adjective and the verb. Each effect is measured by putting in what another review gives at that very place, and
by its share of what happens to the metric when the whole review is exchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.detectors._measures.memo import once
from headatlas.edits import Swap
from headatlas.edits.collect import pieces
from headatlas.heads import HeadId
from headatlas.methods.direct_logit_attribution import demand_plain_sum
from headatlas.methods.sweeps.ablation import demand_aligned
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.methods.sweeps.run import metric_of
from headatlas.methods.sweeps.set_ablation import SetAblation, another
from headatlas.model import LayerView, Model
from headatlas.task import Batch, Metric, logit_difference

Array = NDArray[np.float64]
Values = Mapping[tuple[str, int], Tensor]
LOOKS = 0.2  # the share of its attention that makes a head one that looks there


class Looks(NamedTuple):
    """What heads did at two places of a run, by (stack, layer).

    at_summary, at_end [example, head, d_value]: z at the summary word and at the last token. stored, the same shape: the values
    that the summary word offers. weight [example, head]: attention from the last token to the summary word. gathers, reads
    [example, head]: of the attention that does not rest on the first token, the share from the summary word to adjective
    and verb, and from the last token to the summary word.
    """

    at_summary: Values
    at_end: Values
    stored: Values
    weight: Values
    gathers: Values
    reads: Values


class Passed(NamedTuple):
    """Effects as shares of the whole review's, [example, head]; 0 for heads that look elsewhere.

    other: what another review of the same kind does in place of the opposite one; NaN where the batch has none.
    """

    effect: Array
    other: Array


def brought(model: Model, batch: Batch) -> Passed:
    """What each head's output at the summary word carries of the mood, for heads that look at adjective and verb from there."""
    return once(model, batch, "brought to the summary", lambda: _brought(model, batch))


def taken(model: Model, batch: Batch) -> Passed:
    """What each head takes of the mood from the summary word to the last token, for heads that look at it."""
    return once(model, batch, "taken from the summary", lambda: _taken(model, batch))


def _brought(model: Model, batch: Batch) -> Passed:
    looks, opposite = _looks(model, batch), _looks(model, _counterfactual(batch))

    def put(head: HeadId, order: Tensor | None) -> Swap:
        values = {place: x[:, None] for place, x in opposite.at_summary.items()}
        if order is not None:
            values = {place: x[order, None] for place, x in looks.at_summary.items()}
        return Swap([head], values, positions=batch.positions["summary"][:, None])

    return _measured(model, batch, looks.gathers, put)


def _taken(model: Model, batch: Batch) -> Passed:
    looks, opposite = _looks(model, batch), _looks(model, _counterfactual(batch))

    def put(head: HeadId, order: Tensor | None) -> Swap:
        stored = opposite.stored if order is None else {place: x[order] for place, x in looks.stored.items()}
        return _reading([head], batch, looks, stored)

    return _measured(model, batch, looks.reads, put)


def _reading(heads: Sequence[HeadId], batch: Batch, looks: Looks, stored: Values) -> Swap:
    """Heads at the last token with other values at the summary word: z + A[end, summary] (v' - v)."""
    values = {
        place: (looks.at_end[place] + looks.weight[place][..., None] * (stored[place] - looks.stored[place]))[:, None]
        for place in {(head.stack, head.layer) for head in heads}
    }
    return Swap(heads, values, positions=batch.positions["end"][:, None])


def unread(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """Heads find at the summary word what the counterfactual review has put there, and everything else as it is."""
    looks, opposite = _looks(model, batch), _looks(model, _counterfactual(batch))
    return SetAblation(model, batch, metric, lambda heads: _reading(heads, batch, looks, opposite.stored))


def _measured(model: Model, batch: Batch, attention: Values, put: Callable[[HeadId, Tensor | None], Swap]) -> Passed:
    """put(head, None): the edit with the opposite review's values; put(head, order): with those of other examples."""
    looked = torch.cat([attention[layer.stack, layer.index] for layer in model.layers], 1).mean(0)
    chosen = (looked >= LOOKS).nonzero().flatten().tolist()
    alike, replay = _alike(batch), CachedRuns(model, batch, logit_difference)
    whole = replay.clean - metric_of(model, batch, logit_difference, run_on=_counterfactual(batch))
    heads = [model.heads[i] for i in chosen]
    runs = [[put(head, order)] for order in (None, alike.clamp(min=0)) for head in heads]
    falls = (replay.clean - replay.measure(runs)).reshape(2, len(chosen), len(batch)) / float(np.abs(whole).mean())
    effect, other = np.zeros((len(batch), len(model.heads))), np.zeros((len(batch), len(model.heads)))
    effect[:, chosen], other[:, chosen] = falls[0].T, falls[1].T
    other[(alike < 0).numpy()] = np.nan
    return Passed(effect, other)


def _counterfactual(batch: Batch) -> Batch:
    assert batch.counterfactual is not None
    demand_aligned(batch, batch.counterfactual)
    return batch.counterfactual


def _alike(batch: Batch) -> Tensor:
    """[example] the next review of the same wording and mood; -1 where there is none."""
    kinds = torch.stack([batch.labels["template"], batch.labels["positive"], batch.mask.sum(1)], 1)
    return another([kinds], lambda i, j: bool((kinds[i] == kinds[j]).all()))


@torch.no_grad()
def _looks(model: Model, batch: Batch) -> Looks:
    parts: list[Looks] = []

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
        parts.append(Looks({}, {}, {}, {}, {}, {}))
        model.forward(part, watch=functools.partial(watch, part), logit_positions=torch.zeros(1, dtype=torch.long))
    return Looks(*({place: torch.cat([one[i][place] for one in parts]) for place in parts[0][i]} for i in range(6)))
