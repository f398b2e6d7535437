"""What a recipe gains on prompts that it was not fitted on, beside random ones of its size, and what it costs elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.recipe.recipe import Recipe
from headatlas.edits import OnHeads
from headatlas.errors import BadInput, UnfitTask
from headatlas.methods.sweeps.plan import metric_of, metrics_of
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import Batch, Metric, find_task
from headatlas.task.answers import demand_measurable

BEYOND, NO_BETTER, WORSE = "beyond random", "no better than random", "worse than without"
ELSEWHERE = ("ioi", "facts-held-out")  # tasks on which damage is looked for unless told
PASSAGES = 8  # of prose, 128 tokens each
OTHER = 24  # prompts of each other task
_AT_ONCE = 2  # passages: logits of the whole vocabulary at every token, twice


@dataclass(frozen=True)
class Gain:
    """One metric without the recipe (base) and with it (value).

    change: mean over examples of what is better with it (the sign is turned where lower is better), low to high its 95%
    interval. random: the mean change of each rival; over: change less the rivals' mean, over_low to over_high its interval.
    """

    metric: str
    unit: str
    n: int
    base: float
    value: float
    change: float
    low: float
    high: float
    random: tuple[float, ...]
    over: float
    over_low: float
    over_high: float

    @property
    def verdict(self) -> str:
        """Beyond random: both intervals lie above zero, and no rival gains as much."""
        if self.high < 0:
            return WORSE
        return BEYOND if self.low > 0 and self.over_low > 0 and self.change > max(self.random) else NO_BETTER


@dataclass(frozen=True)
class Damage:
    """What a recipe changes elsewhere: mean, and its 95% interval over texts. name: loss on prose, KL on prose, or a task's metric."""

    name: str
    unit: str
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """gains: by metric, the first is what the recipe is for; damage: elsewhere. facts: recipe, prompts, rivals, what was skipped."""

    gains: tuple[Gain, ...]
    damage: tuple[Damage, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """That of the first metric."""
        return self.gains[0].verdict

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data."""
        gains = [{**vars(one), "random": list(one.random), "verdict": one.verdict} for one in self.gains]
        return {**self.facts, "verdict": self.verdict, "gains": gains, "damage": [vars(one) for one in self.damage]}


def outcome_of(
    model: Model,
    recipe: Recipe,
    batch: Batch,
    metrics: Sequence[Metric],
    *,
    rivals: Sequence[Recipe],
    elsewhere: Sequence[str] = ELSEWHERE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """Gain on a batch by each metric beside rivals of the same size, and damage on prose and on tasks by name.

    The metrics read logits at the same positions.

    Raises BadInput, UnknownName.
    """
    if not rivals or not metrics:
        raise BadInput("A gain is told beside at least one rival.", "Ask for 1 draw or more.")
    progress = progress or Silent()
    for metric in metrics:
        demand_measurable(metric, batch)
    places = metrics[0].positions(batch)

    def measured(one: Recipe | None) -> list[Array]:
        with contextlib.nullcontext() if one is None else one.tuned(model):
            found = metrics_of(model, batch, metrics, edits=[] if one is None else one.edits_for(places))
        progress.advance("measure", of=len(rivals) + 2)
        return found

    base, value = measured(None), measured(recipe)
    gains = gains_of(metrics, base, value, [measured(one) for one in rivals])
    damage: list[Damage] = []
    skipped = {}
    for name in ("prose", *elsewhere):
        try:
            damage += _on_prose(model, recipe, seed) if name == "prose" else [_on_task(model, recipe, name, seed)]
        except UnfitTask as error:
            skipped[name] = error.message
    return Outcome(tuple(gains), tuple(damage), {"n_rivals": len(rivals), "skipped": skipped})


def gains_of(
    metrics: Sequence[Metric], base: Sequence[Array], value: Sequence[Array], rivals: Sequence[Sequence[Array]]
) -> list[Gain]:
    """What each metric gains: base (without), value (with) and each rival have [example] of every metric."""
    drawn = [np.stack(found) for found in zip(*rivals, strict=True)]
    return [gain_of(*one) for one in zip(metrics, base, value, drawn, strict=True)]


def gain_of(metric: Metric, base: Array, value: Array, random: Array) -> Gain:
    """What a metric gains: base (without), value (with) [example], random (with each rival) [rival, example]."""
    better = -metric.worse(value - base)
    drawn = -metric.worse(random - base)
    over = better - drawn.mean(0)
    (low, over_low), (high, over_high) = stats.interval(np.stack([better, over], 1))
    return Gain(
        metric.name, metric.unit, len(base), float(base.mean()), float(value.mean()), float(better.mean()), float(low),
        float(high), tuple(drawn.mean(1).tolist()), float(over.mean()), float(over_low), float(over_high),
    )  # fmt: skip


def _on_task(model: Model, recipe: Recipe, name: str, seed: int) -> Damage:
    task = find_task(name)
    if task.metric is None:
        raise UnfitTask(f"{name} has no metric")
    batch = task(model.tokenizer, OTHER, seed)
    edits = recipe.edits_for(task.metric.positions(batch))
    with recipe.tuned(model):
        changed = metric_of(model, batch, task.metric, edits=edits)
    change = changed - metric_of(model, batch, task.metric)
    return _damage(f"{name}: {task.metric.name}", task.metric.unit, change)


def _on_prose(model: Model, recipe: Recipe, seed: int) -> Iterator[Damage]:
    """Loss and KL(without || with) per token of passages, in which the recipe acts at every token."""
    batch = find_task("prose")(model.tokenizer, PASSAGES, seed)
    both = [prose_change(model, part, recipe) for part in batch.chunks(_AT_ONCE)]
    loss, kl = (torch.cat(parts).numpy() for parts in zip(*both, strict=True))
    yield _damage("loss on prose", "nats", loss)
    yield _damage("KL on prose", "nats", kl)


def prose_change(model: Model, batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """[example] mean rise of the next-token loss under a recipe at every token, and mean KL(without || with), over positions["predict"]."""
    places = batch.positions["predict"]
    present = (places >= 0).double()
    target = batch.tokens.gather(1, (places + 1).clamp(min=0))[..., None]

    def logs(edits: Sequence[OnHeads] = ()) -> Tensor:
        return model.forward(batch, edits=list(edits), logit_positions=places).float().cpu().log_softmax(-1)

    plain = logs()
    with recipe.tuned(model):
        edited = logs(recipe.edits())
    rise = (plain - edited).gather(-1, target)[..., 0].double()
    kl = (plain.exp() * (plain - edited)).sum(-1).double()
    mean = lambda x: (x.nan_to_num() * present).sum(1) / present.sum(1)  # noqa: E731
    return mean(rise), mean(kl)


def _damage(name: str, unit: str, change: Array) -> Damage:
    low, high = stats.interval(change[:, None])
    return Damage(name, unit, float(change.mean()), float(low[0]), float(high[0]))
