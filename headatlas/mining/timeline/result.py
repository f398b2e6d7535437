"""A timeline: every head under every detector at every checkpoint, and what that says about how heads came to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from headatlas.heads import HeadId
from headatlas.mining.timeline.lives import (
    Drop,
    Life,
    RoleChange,
    Series,
    alive,
    bar_of,
    drop_of,
    false_discovery,
    lives,
    role_changes,
)
from headatlas.ops import stats
from headatlas.ops.types import Array

SCHEMA = "headatlas/timeline/1"


@dataclass(frozen=True)
class MetricSeries:
    """A task's metric over the checkpoints. values: [checkpoint, example]."""

    task: str
    name: str
    unit: str
    higher_is_better: bool
    values: Array

    @property
    def means(self) -> Array:
        """[checkpoint] means over examples."""
        return np.array([stats.mean(one[:, None])[0] for one in self.values])


@dataclass(frozen=True)
class Timeline:
    """Detectors over the checkpoints of a training. heads: by their addresses in the last checkpoint.

    labels, steps: of the checkpoints, in order. moved: (label, address there, address in the last checkpoint) of heads
    that stood elsewhere. facts: what decided the numbers. skipped: detectors that were not asked, with the reason.
    """

    labels: tuple[str, ...]
    steps: tuple[int, ...]
    heads: tuple[HeadId, ...]
    series: tuple[Series, ...]
    metrics: Mapping[str, MetricSeries]
    facts: Mapping[str, Any]
    skipped: Mapping[str, str] = field(default_factory=dict)
    moved: tuple[tuple[str, HeadId, HeadId], ...] = ()

    @cached_property
    def q(self) -> tuple[Array, ...]:
        """For each series [checkpoint, head] of q, counted over all heads, detectors and checkpoints."""
        return tuple(false_discovery(self.series))

    @cached_property
    def drops(self) -> dict[str, Drop]:
        """By task where its metric got better; tasks on which it did not are left out."""
        found = {
            name: drop_of(name, one.name, one.values if one.higher_is_better else -one.values, self.steps)
            for name, one in self.metrics.items()
        }
        return {name: drop for name, drop in found.items() if drop is not None}

    @cached_property
    def lives(self) -> tuple[Life, ...]:
        """When each head passes each detector, in the order of births."""
        bar = bar_of(self.q)
        found = [
            life
            for one, q in zip(self.series, self.q, strict=True)
            for life in lives(one, q, bar, self.heads, self.steps, self.drops)
        ]
        return tuple(sorted(found, key=lambda life: (life.born, life.head, life.detector)))

    @cached_property
    def role_changes(self) -> tuple[RoleChange, ...]:
        """Heads that passed as one head type and later as another."""
        return tuple(role_changes(self.lives))

    def first(self, detector: str) -> Life | None:
        """The earliest life of any head under a detector; None where no head passes."""
        return next((life for life in self.lives if life.detector == detector), None)

    @property
    def data(self) -> dict[str, Any]:
        """All but the numbers of single checkpoints, which `table` has."""
        means = {name: [float(x) for x in one.means] for name, one in self.metrics.items()}
        return {
            "schema": SCHEMA,
            **self.facts,
            "checkpoints": [{"label": a, "step": b} for a, b in zip(self.labels, self.steps, strict=True)],
            "detectors": [one.detector for one in self.series],
            "skipped": dict(self.skipped),
            "heads": [str(head) for head in self.heads],
            "lives": [_plain(life) for life in self.lives],
            "role_changes": [_plain(change) for change in self.role_changes],
            "drops": [asdict(drop) for drop in self.drops.values()],
            "metrics": {name: {"metric": self.metrics[name].name, "unit": self.metrics[name].unit, "means": mean}
                        for name, mean in means.items()},
            "moved": [{"checkpoint": label, "from": str(a), "to": str(b)} for label, a, b in self.moved],
        }  # fmt: skip

    @property
    def table(self) -> dict[str, list[Any]]:
        """The columns of timeline.parquet: a row for each checkpoint, detector and head."""
        columns: dict[str, list[Any]] = {name: [] for name in (
            "checkpoint", "step", "detector", "head_type", "task", "stack", "layer", "head", "score", "chance", "p", "q",
            "passes")}  # fmt: skip
        for one, q in zip(self.series, self.q, strict=True):
            passes, p = alive(q, one.excess, one.minimum_effect), one.p
            for number, (label, step) in enumerate(zip(self.labels, self.steps, strict=True)):
                score, chance = stats.mean(one.values[number]), stats.mean(one.control[number])
                for column, head in enumerate(self.heads):
                    row = (label, step, one.detector, one.head_type, one.task, head.stack, head.layer, head.head,
                           *(_number(x[column]) for x in (score, chance, p[number], q[number])),
                           bool(passes[number, column]))  # fmt: skip
                    for name, value in zip(columns, row, strict=True):
                        columns[name].append(value)
        return columns

    def __repr__(self) -> str:
        return (f"Timeline({len(self.labels)} checkpoints, steps {self.steps[0]} to {self.steps[-1]}, "
                f"{len(self.series)} detectors; {len({life.head for life in self.lives})} heads pass)")  # fmt: skip


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _plain(one: Life | RoleChange) -> dict[str, Any]:
    return {**vars(one), "head": str(one.head)}


def spread(life: Life, steps: Sequence[int]) -> str:
    """When a head formed, in words: between which steps, and the interval where it is wider."""
    between = f"by step {life.born:,}" if life.after is None else f"steps {life.after:,} to {life.born:,}"
    high = "never" if life.high is None else f"{life.high:,}"
    wider = (life.low, life.high) != (steps[0] if life.after is None else life.after, life.born)
    return f"{between} (95%: {life.low:,} to {high})" if wider else between
