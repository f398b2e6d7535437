"""Heads that start to name the right person once the heads that did so are knocked out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.name_movers import (
    MINIMUM_EFFECT,
    chance_at_least_zero,
    clean_effects,
    effect_unit,
    effects_by_name,
    find_name_heads,
    find_name_movers,
)
from headatlas.edits import OnHeads, Resample, collect
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.model import Model
from headatlas.ops.types import Array, LayerKey
from headatlas.task import Batch, Metric
from headatlas.tasks.ioi import ioi

DRAWS = 3  # random sets of heads that are knocked out in place of the name movers


@model_detector(
    head_type="backup-name-mover-head",
    task=ioi,
    version=1,
    minimum_effect=MINIMUM_EFFECT,
    needs=("unembedding",),
)
def backup_name_mover(model: Model, batch: Batch) -> Measured:
    """Growth of a head's copying of the indirect object when the name movers are knocked out: 0 none, 1 the whole logit difference.

    Formula: (m after - m before) / mean clean logit difference, m = max(0, d(IO) + min(0, d(S))) the direct effect of the
    score `name-mover`, so that a negative head that only becomes less so does not count; after: with the model's name movers giving at the last token what they give on the counterfactual
    prompts, three other names (Wang et al. 2022, section 3.4; there by mean ablation). Chance: the growth when as many random
    heads of the same layers are knocked out instead, mean of 3 draws without name movers or negative ones, and not below
    0. NaN for the knocked out heads, for all heads of a model without name movers, and where the model does not do the task.
    Minimum effect: 2% of the logit difference. The verdict asks what the heads are worth once the name movers are out.
    """
    gone = find_name_movers(model)
    nothing = torch.full((len(batch), len(model.heads)), torch.nan, dtype=torch.float64)
    if not gone:
        return Measured(nothing, nothing.clone())
    values, control = _growth(model, batch, gone, find_name_heads(model))
    return Measured(torch.from_numpy(values), torch.from_numpy(control))


def _growth(model: Model, batch: Batch, gone: Iterable[HeadId], named: Iterable[HeadId]) -> tuple[Array, Array]:
    """(growth, chance) [example, head] when heads `gone` are knocked out; `named` are not among the random heads."""
    gone, values = tuple(gone), _elsewhere(model, batch)
    before = clean_effects(model, batch)
    unit = effect_unit(before.total)

    def grown(heads: Iterable[HeadId]) -> Array:
        edit = Resample(sorted(heads), values, positions=batch.positions["end"].reshape(-1, 1))
        after = effects_by_name(model, batch, edits=[edit])
        found: Array = (np.maximum(after.copying, 0.0) - np.maximum(before.copying, 0.0)) / unit
        return found

    rng = np.random.default_rng(0)
    free = sorted(set(model.heads) - {*gone, *named})
    draws = [grown(matched(gone, free, rng)) for _ in range(DRAWS)]
    known = ~np.isnan(draws)
    total = np.where(known, draws, 0.0).sum(0)
    with np.errstate(invalid="ignore"):
        chance = total / known.sum(0)  # NaN for a head that is knocked out in every draw
    return grown(gone), chance_at_least_zero(chance)


def _elsewhere(model: Model, batch: Batch) -> dict[LayerKey, torch.Tensor]:
    if batch.counterfactual is None:
        raise BadInput(
            "Heads are knocked out by what they give on counterfactual prompts.", "Use prompts that have them."
        )
    return collect(model, batch.counterfactual, OnHeads(model.heads))


class _WithoutMovers:
    """What further heads are worth once the name movers are knocked out, all at the last token."""

    def __init__(self, model: Model, batch: Batch, metric: Metric, gone: Iterable[HeadId]) -> None:
        self.model, self.metric, self.gone = model, metric, frozenset(gone)
        self._values = _elsewhere(model, batch)
        self._positions = batch.positions["end"].reshape(-1, 1)
        self._replay = CachedRuns(model, batch, metric)
        self.without = self._score(self.gone)

    def metric_drop(self, heads: Iterable[HeadId]) -> Array:
        """How much the metric worsens further [example] when `heads` are knocked out beside the name movers."""
        found: Array = self.metric.worse(self._score(self.gone | set(heads)) - self.without)
        return found

    def _score(self, heads: Iterable[HeadId]) -> Array:
        edit = Resample(sorted(heads), self._values, positions=self._positions)
        found: Array = self._replay.measure([[edit]])[0]
        return found


def removal(model: Model, batch: Batch, metric: Metric) -> _WithoutMovers:
    """The heads knocked out beside the name movers, at the last token."""
    return _WithoutMovers(model, batch, metric, find_name_movers(model))
