"""Steering measured: what pushes of several sizes do to a metric, beside random directions, and what they cost elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.steering.direction import Steering
from headatlas.choices import parse_alphas as parse_alphas
from headatlas.edits import OnHeads
from headatlas.errors import BadInput
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import Batch, Metric, logit_difference


@dataclass(frozen=True)
class Dose:
    """One alpha (None: the direction taken away): mean metric, its mean change with a 95% interval, what random directions do, and the harm elsewhere.

    random: mean change over random directions; random_reach: the largest change of either sign among them. beyond: whether
    the interval excludes zero and the change is larger than that of every random direction. harm: change of the loss on
    unrelated text, NaN where it was not measured.
    """

    alpha: float | None
    value: float
    change: float
    low: float
    high: float
    random: float
    random_reach: float
    beyond: bool
    harm: float


@dataclass(frozen=True)
class Doses:
    """values [example, alpha], base [example] the metric with and without steering; random [draw, example, alpha].

    harm [example, alpha]: loss on unrelated text with steering minus without, None where it was not measured.
    """

    alphas: tuple[float | None, ...]
    base: Array
    values: Array
    random: Array
    harm: Array | None
    metric: Metric

    def summary(self) -> list[Dose]:
        """One line per alpha."""
        change = self.values - self.base[:, None]
        low, high = stats.interval(change)
        drawn = (self.random - self.base[None, :, None]).mean(1)  # [draw, alpha]
        lines = []
        for i, alpha in enumerate(self.alphas):
            mean, reach = float(change[:, i].mean()), float(np.abs(drawn[:, i]).max())
            apart = low[i] > 0 or high[i] < 0
            harm = math.nan if self.harm is None else float(self.harm[:, i].mean())
            lines.append(
                Dose(alpha, float(self.values[:, i].mean()), mean, float(low[i]), float(high[i]), float(drawn[:, i].mean()), reach,
                     bool(apart and abs(mean) > reach), harm)
            )  # fmt: skip
        return lines


def measure(
    model: Model,
    steering: Steering,
    batch: Batch,
    metric: Metric,
    alphas: Sequence[float | None],
    *,
    draws: int = 5,
    everywhere: bool = False,
    unrelated: tuple[Batch, Metric] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Doses:
    """The metric of a batch under steering by each alpha (None: the direction taken away), and under `draws` random directions of the same size.

    everywhere: push at every token; else at the positions whose logits the metric reads, which is where the text would go
    on. unrelated: a batch and its loss, to see what steering costs elsewhere (pushed at every token). Raises BadInput.
    """
    if not alphas or draws < 1:
        raise BadInput("Steering is measured with one alpha and one random direction at least.", "Give --alpha 5,10.")
    positions = None if everywhere else metric.positions(batch)
    total = len(alphas) * (1 + draws + (unrelated is not None))
    progress = progress or Silent()

    def score(edits: Sequence[OnHeads], on: Batch, by: Metric) -> Array:
        found = edited_metric(model, on, by, edits)
        progress.advance("measure", of=total)
        return found

    base = edited_metric(model, batch, metric, [])
    values = np.stack([score([steering.dose(alpha, positions)], batch, metric) for alpha in alphas], 1)
    controls = [steering.random(seed + 1 + draw) for draw in range(draws)]
    random = np.stack(
        [np.stack([score([one.dose(alpha, positions)], batch, metric) for alpha in alphas], 1) for one in controls]
    )
    harm = None
    if unrelated is not None:
        plain = edited_metric(model, *unrelated, [])
        harm = np.stack([score([steering.dose(alpha)], *unrelated) - plain for alpha in alphas], 1)
    return Doses(tuple(alphas), base, values, random, harm, metric)


def edited_metric(model: Model, batch: Batch, metric: Metric, edits: Sequence[OnHeads]) -> Array:
    """[example] the metric with edits made for this batch in force."""
    return metric_of(model, batch, metric, edits=edits)


def toward_metric(metric: Metric, batch: Batch, label: str | None, target: str) -> Metric:
    """The logit difference counted for the class that is steered to, where the measured prompts carry the same label.

    A task's own metric is for the right answer, so pushing to one class helps its prompts and hurts the others', which
    cancels. Here a prompt of another class counts with the opposite sign: its wrong answer is that of the target class.
    Other metrics, and prompts of two answers without labels, are taken as they are.
    """
    value = batch.labels.get(label) if label is not None else None
    if value is None or metric is not logit_difference or len(value.unique()) != 2 or not target.isdigit():
        return metric

    def score(logits: Tensor, part: Batch) -> Tensor:
        sign = torch.where(part.labels[str(label)] == int(target), 1.0, -1.0)
        return metric.score(logits, part) * sign

    return replace(metric, name=f"{metric.name} towards {label} {target}", score=score)


def data_of(found: Doses) -> dict[str, Any]:
    """The numbers as plain values."""
    return {
        "metric": found.metric.name,
        "unit": found.metric.unit,
        "n_examples": len(found.base),
        "base": float(found.base.mean()),
        "n_random": len(found.random),
        "doses": [vars(line) for line in found.summary()],
    }
