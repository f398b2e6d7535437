"""Whether a model can do a task at all: what breaks a task that was never done means nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headatlas.errors import BadInput
from headatlas.methods.sweeps.run import metric_of
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.task import Batch, Metric, Task, fitting, held_out

EXAMPLES = 16  # held-out prompts on which a task is tried before a sweep
# How much of the way from chance to certainty a model's accuracy must cover; 0.625 for two answers. The papers on
# circuits ask for 0.6 to 0.9 there, for 0.4 of in-context tasks and for 0.45 where chance is a third.
SKILL = 0.25


@dataclass(frozen=True)
class Gate:
    """A model's metric on a task next to its floor; `better` says by how much it is better, with its interval's low end.

    accuracy, chance: the share of examples whose answer is preferred to the wrong one, on the task and on its control;
    None for metrics that compare no answers. accuracy_low: the low end of the interval of accuracy minus chance.
    """

    metric: Metric
    value: float
    floor: float
    better: float
    low: float
    margin: float
    accuracy: float | None = None
    chance: float | None = None
    accuracy_low: float | None = None

    @property
    def able(self) -> bool:
        """Whether the model does the task.

        Its metric is better than the floor by the task's margin, and certainly better than nothing; and where answers are
        compared, its accuracy is beyond doubt above chance and covers SKILL of the way from there to 1.
        """
        if self.better < self.margin or not self.low > 0:
            return False
        if self.accuracy is None or self.chance is None or self.accuracy_low is None:
            return True
        return self.accuracy_low > 0 and self.accuracy >= self.chance + SKILL * (1 - self.chance)

    @property
    def smallest(self) -> float:
        """The smallest effect that counts: one percent of what the model's ability is worth on this task."""
        return 0.01 * abs(self.better)

    @property
    def baseline(self) -> dict[str, Any]:
        """The gate as it is written into an atlas."""
        return {
            "metric": self.metric.name, "value": self.value, "floor": self.floor, "margin": self.margin,
            "unit": self.metric.unit, "accuracy": self.accuracy, "chance": self.chance, "able": self.able,
        }  # fmt: skip

    def demand(self, model: Model, what: str) -> None:
        """Raise BadInput where the model does not do the task."""
        if not self.able:
            raise BadInput(
                f"{model.name} does not do {what}: its {self.metric.name} is {self.value:.2f} {self.metric.unit}, "
                f"the floor {self.floor:.2f}"
                + ("." if self.accuracy is None else f"; accuracy {self.accuracy:.0%}, chance {self.chance:.0%}."),
                "Effects of changes would mean little. Choose another task or model, or insist with --force.",
            )


def gate_of_values(task: Task, value: Array, floor: Array | None, vocabulary: int) -> Gate:
    """The gate from a task's metric per example, [example], and the same on its control; raises BadInput without one.

    vocabulary: how many tokens there are, for tasks whose floor is a uniform guess.
    """
    if task.metric is None:
        raise BadInput(f"Task {task.name} has no metric, so no effects can be measured on it.", "Choose another task.")
    if task.floor == "uniform":
        return _gate(task.metric, value, np.full(len(value), math.log(vocabulary)), task.margin)
    if task.floor == "even":
        return _gate(task.metric, value, np.zeros(len(value)), task.margin)
    if floor is None:
        raise BadInput(
            f"Task {task.name} has no control batch to take its floor from.",
            "Give the task a control, or floor='uniform', or 'even'.",
        )
    return _gate(task.metric, value, floor, task.margin)


def gate_of_task(model: Model, task: Task, batch: Batch) -> Gate:
    """The gate of a built-in task on a batch of it: its own floor and margin. Raises BadInput for a task without a metric."""
    if task.metric is None:
        return gate_of_values(task, np.zeros(0), None, model.vocabulary_size)
    uniform = task.floor != "control" or batch.control is None
    floor = None if uniform or batch.control is None else metric_of(model, batch.control, task.metric)
    return gate_of_values(task, metric_of(model, batch, task.metric), floor, model.vocabulary_size)


def gate_on_held_out(model: Model, task: Task, n: int = EXAMPLES, seed: int = 0) -> Gate:
    """The gate of a task on items that the task itself does not use: its held-out twin, or other random draws."""
    twin = held_out(task)
    drawn = (task, seed + 1_000_003) if twin is None else (twin, seed)
    batch = fitting(drawn[0], model.tokenizer, n, drawn[1])  # of a few items a half, or a quarter
    return gate_of_task(model, task, batch)


def gate_of_prompts(model: Model, batch: Batch, metric: Metric) -> Gate:
    """The gate of a user's prompts: the answer must be preferred to the wrong one, on average and beyond doubt."""
    value = metric_of(model, batch, metric)
    return _gate(metric, value, np.zeros(len(value)), 0.0)


def _gate(metric: Metric, value: Array, floor: Array, margin: float) -> Gate:
    better = value - floor if metric.higher_is_better else floor - value
    low = float(stats.interval(better[:, None])[0][0])
    plain = Gate(metric, float(value.mean()), float(floor.mean()), float(better.mean()), low, margin)
    if not metric.compares:
        return plain
    right, lucky = (value > 0).astype(float), (floor > 0).astype(float)
    accuracy_low = float(stats.interval((right - lucky)[:, None])[0][0])
    return replace(plain, accuracy=float(right.mean()), chance=float(lucky.mean()), accuracy_low=accuracy_low)
