"""What a task's metric loses when heads are removed: the question of verdicts, at the price of what the removal touches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from headatlas.edits import Mean, OnHeads, Resample, Swap, collect
from headatlas.edits.collect import means
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps.ablation import demand_aligned
from headatlas.methods.sweeps.cached_runs import Beside, CachedRuns
from headatlas.methods.sweeps.gradient_estimate import estimate
from headatlas.methods.sweeps.plan import Make, Sweep
from headatlas.ops.types import Array, LayerKey
from headatlas.progress import Progress
from headatlas.renamed import Renamed
from headatlas.task import Batch, Metric

if TYPE_CHECKING:
    from headatlas.model import Model


class SetAblation:
    """The effect of any set of heads on one batch when `change(heads)`, an edit, stands in their place.

    Only layers from the first changed one on, and tokens from the first changed one on, are computed (`CachedRuns`), and each
    set of heads is measured once. within: [example, n] where changes act, None: anywhere. kind: "mean" or "resample" where
    that is what the change does, "" for others.
    """

    worsening = Renamed("metric_drop")

    def __init__(
        self,
        model: Model,
        batch: Batch,
        metric: Metric,
        change: Callable[[Sequence[HeadId]], OnHeads],
        within: Tensor | None = None,
        kind: str = "",
    ) -> None:
        self.model, self.batch, self.metric, self.change = model, batch, metric, change
        self.within, self.kind = within, kind
        self._replay = CachedRuns(model, batch, metric, within=within)
        self._known: dict[frozenset[HeadId], Array] = {frozenset(): np.zeros(len(batch))}

    def instead(self, change: Callable[[Sequence[HeadId]], OnHeads]) -> SetAblation:
        """The same runs with another edit in the heads' place, which must act at the same positions."""
        other = copy.copy(self)
        other.change, other._known = change, {frozenset(): np.zeros(len(self.batch))}
        return other

    @property
    def clean(self) -> Array:
        """[example] the metric with every head in place."""
        return self._replay.clean

    def metric_drop(self, heads: Iterable[HeadId]) -> Array:
        """How much the metric worsens per example, [example], when `heads` are changed."""
        key = frozenset(heads)
        self.prepare([key])
        return self._known[key]

    def prepare(
        self, sets: Sequence[Iterable[HeadId]], progress: Progress | None = None, *, beside: Iterable[HeadId] = ()
    ) -> None:
        """Measure several sets of heads, side by side where they can be; `metric_drop` then knows them. `progress` counts sets.

        beside: a set that all of these are like but for late layers, which then are all that is computed.
        """
        new = list(dict.fromkeys(key for heads in sets if (key := frozenset(heads)) not in self._known))
        like = frozenset(beside)
        known = None
        if like and len(new) > 1 and like not in new and self._replay.restarts:
            known = Beside([self.change(sorted(like))], [[self.change(sorted(key ^ like))] for key in new])
        found = self._replay.measure([[self.change(sorted(key))] for key in new], beside=known, progress=progress)
        self._known |= {key: self.metric.worse(one - self.clean) for key, one in zip(new, found, strict=True)}

    def knows(self, heads: Iterable[HeadId]) -> bool:
        """Whether this set of heads was measured before."""
        return frozenset(heads) in self._known

    def estimates(self, heads: Sequence[HeadId]) -> Array:
        """[head] what `metric_drop` gives for each of these heads, mean over examples, to first order (attribution patching).

        It only ranks heads. Raises BadInput, UnsupportedModel where no gradient can be taken, or it would be 0 for all heads.
        """
        if self.metric.level:
            raise BadInput(f"The {self.metric.name} has no slope in the run without changes.", "Measure each head.")

        def prepared(rows: slice) -> Make:
            return lambda head_set, at: [self.change(head_set).rows(rows)]

        sweep = Sweep(
            "ablation", self.batch, self.metric, tuple((head,) for head in heads), {"all": None}, "z", prepared
        )
        return self.metric.worse(estimate(self.model, sweep, self._replay.memory)[:, 0])


def ablated(
    model: Model,
    batch: Batch,
    metric: Metric,
    mean_z: Mapping[LayerKey, Tensor],
    positions: Tensor | None = None,
) -> SetAblation:
    """Heads give what they gave on the batch's counterfactual prompts (resample ablation), where there are none their `mean_z`.

    mean_z: (stack, layer) -> [head, d_value]. positions: where, [example, n] with -1 for none; None: everywhere.
    """
    other = batch.counterfactual
    if other is None:
        return SetAblation(
            model, batch, metric, lambda heads: Mean(heads, mean_z, positions=positions), positions, "mean"
        )
    if positions is not None:
        return resampled_at(model, batch, metric, positions)
    values = collect(model, other, OnHeads(model.heads))
    return SetAblation(model, batch, metric, lambda heads: Resample(heads, values), kind="resample")


def averaged_at(model: Model, batch: Batch, metric: Metric, positions: Tensor) -> SetAblation:
    """Heads give at positions [example, n] what they give there on average over the batch (mean ablation)."""
    values = averages(model, batch, positions)
    return SetAblation(model, batch, metric, lambda heads: Mean(heads, values, positions=positions), positions, "mean")


def resampled_at(model: Model, batch: Batch, metric: Metric, positions: Tensor) -> SetAblation:
    """Heads give at positions [example, n] what they give there on the counterfactual prompts (resample ablation).

    Raises BadInput without counterfactual prompts of the same length.
    """
    other = batch.counterfactual
    if other is None:
        raise BadInput("Resampling needs counterfactual prompts.", "Choose a task that has them.")
    demand_aligned(batch, other)
    values = Swap.over(model, model.heads, other, positions=positions).values
    return SetAblation(
        model, batch, metric, lambda heads: Swap(heads, values, positions=positions), positions, "resample"
    )


def averages(model: Model, batch: Batch, positions: Tensor) -> Mapping[LayerKey, Tensor]:
    """(stack, layer) -> [head, d_value]: the mean of z at positions [example, n] over the batch."""
    _, found, _ = means(model, batch, OnHeads(model.heads), tokens=positions)
    return {key: value[0] for key, value in found.items()}


def another(labels: Sequence[Tensor], fits: Callable[[int, int], bool]) -> Tensor:
    """[example] for each example i the next one j, in turn, with fits(i, j); -1 where there is none."""
    n = len(labels[0])
    found = [next((j for j in ((i + step) % n for step in range(1, n)) if fits(i, j)), -1) for i in range(n)]
    return torch.tensor(found)
