"""Removing any sets of heads from one batch, many sets at a time: what verdicts ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headatlas.edits import Mean, OnHeads, Resample, collect
from headatlas.heads import HeadId
from headatlas.methods.replay import GB, Replay
from headatlas.model import Model
from headatlas.task import Batch, Metric

Array = NDArray[np.float64]


class Removal:
    """How much the metric of a batch worsens when heads are removed; each set is measured once.

    Heads take their value on the batch's counterfactual prompts where there are some, else the mean in `mean_z`
    ((stack, layer) -> [head, width]). `prepare` measures many sets side by side before they are asked for one by one.
    """

    def __init__(
        self, model: Model, batch: Batch, metric: Metric, mean_z: Mapping[tuple[str, int], Tensor], memory: int = 4 * GB
    ) -> None:
        self.model, self.metric, self.mean_z = model, metric, mean_z
        other = batch.counterfactual
        self._other = collect(model, other, OnHeads(model.heads)) if other is not None else None
        self._replay = Replay(model, batch, metric, memory=memory)
        self._known: dict[frozenset[HeadId], Array] = {}

    @property
    def clean(self) -> Array:
        """[example] the metric of the unchanged run."""
        return self._replay.clean

    def prepare(self, sets: Iterable[Iterable[HeadId]]) -> None:
        """Measure sets of heads that are not known yet, those that start at one layer together."""
        new = [key for key in dict.fromkeys(frozenset(heads) for heads in sets) if key not in self._known]
        for key, score in zip(new, self._replay.measure([[self._edit(sorted(key))] for key in new]), strict=True):
            change = score - self.clean
            self._known[key] = -change if self.metric.higher_is_better else change

    def worsening(self, heads: Iterable[HeadId]) -> Array:
        """How much the metric worsens per example, [example], when `heads` are removed."""
        key = frozenset(heads)
        self.prepare([key])
        return self._known[key]

    def _edit(self, heads: list[HeadId]) -> OnHeads:
        return Resample(heads, self._other) if self._other is not None else Mean(heads, self.mean_z)
