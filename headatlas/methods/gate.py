"""Whether a model can do a task at all: what breaks a task that was never done means nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headatlas.errors import BadInput
from headatlas.methods.sweep import metric_of
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.task import Batch, Metric, Task

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gate:
    """A model's metric on a task next to its floor; `better` says by how much it is better, with its interval's low end.

    able: better than the floor by the task's margin, and certainly better than nothing.
    """

    metric: Metric
    value: float
    floor: float
    better: float
    low: float
    margin: float

    @property
    def able(self) -> bool:
        """Whether the model does the task."""
        return self.better >= self.margin and self.low > 0

    def demand(self, model: Model, what: str) -> None:
        """Raise BadInput where the model does not do the task."""
        if not self.able:
            raise BadInput(
                f"{model.name} does not do {what}: its {self.metric.name} is {self.value:.2f} {self.metric.unit}, "
                f"the floor {self.floor:.2f}.",
                "Effects of changes would mean little. Choose another task or model, or insist with --force.",
            )


def gate_of_task(model: Model, task: Task, batch: Batch) -> Gate:
    """The gate of a built-in task: its own floor and margin. Raises BadInput for a task without a metric."""
    metric = task.metric
    if metric is None:
        raise BadInput(f"Task {task.name} has no metric, so no effects can be measured on it.", "Choose another task.")
    value = metric_of(model, batch, metric)
    if task.floor == "uniform":
        return _gate(metric, value, np.full(len(value), math.log(model.vocabulary_size)), task.margin)
    if batch.control is None:
        raise BadInput(f"Task {task.name} has no control batch to take its floor from.", "Insist with --force.")
    return _gate(metric, value, metric_of(model, batch.control, metric), task.margin)


def gate_of_prompts(model: Model, batch: Batch, metric: Metric) -> Gate:
    """The gate of a user's prompts: the answer must be preferred to the wrong one, on average and beyond doubt."""
    value = metric_of(model, batch, metric)
    return _gate(metric, value, np.zeros(len(value)), 0.0)


def _gate(metric: Metric, value: Array, floor: Array, margin: float) -> Gate:
    better = value - floor if metric.higher_is_better else floor - value
    low, _ = stats.bootstrap(better[:, None])
    return Gate(metric, float(value.mean()), float(floor.mean()), float(better.mean()), float(low[0]), margin)
