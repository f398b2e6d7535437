"""How well a model does on prompts, by any metrics, and what becomes of it without some heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headatlas.edits import Mean
from headatlas.edits.base import OnHeads
from headatlas.errors import BadInput
from headatlas.heads import HeadSets, parse_head_sets
from headatlas.methods.early_answering import AOC, early_answering
from headatlas.methods.measured_by.clean_run import with_clean_run
from headatlas.methods.prompts import MeasuredPrompts, Prompts, prompts_for
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import Metric
from headatlas.task.answers import demand_measurable, find_metric, first_alternatives, kl, over_alternatives
from headatlas.task.benchmark import benchmarks


@dataclass(frozen=True)
class Score:
    """One metric on prompts: values [example], of questions where it is settled from several prompts; without: the same without heads."""

    metric: str
    unit: str
    values: Array
    without: Array | None = None

    @property
    def data(self) -> dict[str, Any]:
        """Mean with its 95% interval over examples, and by how much it changes without the heads, as plain data."""
        found = {
            "metric": self.metric,
            "unit": self.unit,
            "n": len(self.values),
            **_mean(self.values, "value", self.unit),
        }
        return found if self.without is None else {**found, **_mean(self.without - self.values, "change")}


def _mean(values: Array, name: str, unit: str = "") -> dict[str, float]:
    low, high = stats.interval_of(values, unit)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


@dataclass(frozen=True)
class Scores:
    """The metrics of a model on prompts. facts: which prompts, and which heads were removed."""

    prompts: str
    scores: tuple[Score, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, metric: str) -> Score:
        """The score by a metric, by its name or in its spelling on the command line."""
        wanted = metric if metric.lower() == AOC else find_metric(metric).name
        return next(one for one in self.scores if one.metric.lower() == wanted.lower())

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"prompts": self.prompts, **self.facts, "scores": [one.data for one in self.scores]}


def score(
    model: Model,
    batch: Inputs | Prompts,
    metrics: Sequence[Metric | str] | None = None,
    *,
    without: HeadSets | None = None,
    progress: Progress | None = None,
) -> Scores:
    """How well a model does on prompts.

    batch: prompts as `model.forward` takes them, or `Prompts`, which names a task, a benchmark ("truthfulqa=FILE") or a file. metrics:
    by name (mc1, mc2, hit@10, format, icl-score@50-500, aoc, accuracy ...: headatlas.task.answers) or as Metric; default what the
    benchmark's papers report, else the task's own. aoc: how far early answering departs from the answer after a chain of
    thought (`early_answering`). without: heads whose output is replaced by its mean over the prompts, all of them at once.
    Raises BadInput, UnknownName, UnfitTask.
    """
    progress = progress or Silent()
    given = prompts_for(model, batch, progress, demand=False, settles=True, chosen=False)
    chosen = list(metrics) if metrics else _reported(batch, given)
    measures = [AOC if str(one).lower() == AOC else find_metric(one) for one in chosen]
    heads = () if without is None else tuple(h for group in parse_head_sets(without, model.heads) for h in group)
    edits = [Mean.over(model, heads, given.batch)] if heads else []
    found = tuple(_score(model, given, one, edits, progress) for one in measures)
    return Scores(given.name, found, {**given.facts, "without": " ".join(map(str, heads)) or None})


def _reported(batch: Inputs | Prompts, given: MeasuredPrompts) -> list[Metric | str]:
    """What the papers on a benchmark report of it; of other prompts their own metric."""
    spec = batch.task if isinstance(batch, Prompts) and batch.task is not None else ""
    known = benchmarks().get(spec.partition("=")[0])
    return list(known.metrics) if known is not None and known.metrics else [given.metric]


def _score(
    model: Model, given: MeasuredPrompts, metric: Metric | str, edits: Sequence[OnHeads], progress: Progress
) -> Score:
    if not isinstance(metric, Metric):
        runs = {AOC: [], **({f"{AOC} without the heads": edits} if edits else {})}
        values = [
            early_answering(model, first_alternatives(given.batch), one, name=name, progress=progress)
            for name, one in runs.items()
        ]
        return Score("AOC", "share", values[0], *values[1:])
    if metric is kl and not edits:
        raise BadInput(
            "kl compares two runs, and only one is asked for.", "Name heads to remove, or choose another metric."
        )
    demand_measurable(metric, given.batch)
    metric, batch = over_alternatives(metric, given.batch)
    batch = with_clean_run(model, batch) if metric is kl else batch
    clean = metric_of(model, batch, metric)
    changed = metric_of(model, batch, metric, edits=edits) if edits else None
    progress.advance(metric.name, of=1)
    return Score(metric.name, metric.unit, np.asarray(clean), changed)
