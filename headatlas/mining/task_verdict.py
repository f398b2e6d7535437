"""What the verdicts of one task gave, as a typed record that is kept while the run is under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import DRAWS, Effect, Verdict
from headatlas.mining.kept import number, read_kept, write_kept
from headatlas.reading import Record
from headatlas.report.atlas_schema import Effects, Group


class _Judged(Effects):
    """A head's verdict in a kept file."""

    verdict: Literal["causal", "group", "refuted"]


class _Detector(Record):
    heads: dict[str, _Judged]
    group: Group


class KeptVerdict(Record):
    """What a kept verdict holds."""

    detectors: dict[str, _Detector]
    seconds: float


@dataclass(frozen=True)
class RemovalEffect:
    """How much a metric worsens when heads are removed, with its 95% interval, and the size of that for random heads.

    random_effect, random_median: 95th percentile and median over random heads; NaN where there are none.
    """

    effect: float
    low: float
    high: float
    random_effect: float
    random_median: float

    @classmethod
    def of(cls, effect: Effect) -> RemovalEffect:
        """The numbers of a measured effect."""
        return cls(effect.effect, effect.low, effect.high, effect.random_effect, effect.random_median)


@dataclass(frozen=True)
class DetectorVerdict:
    """The verdict on each of a detector's observed heads (causal, group or refuted), and the effects behind it.

    group: the effect of removing all of them; p: the share of `draws` random sets with an effect at least as large.
    examples: how many the effects rest on. metric, unit: what they are effects on.
    """

    verdicts: Mapping[HeadId, str]
    effects: Mapping[HeadId, RemovalEffect]
    group: RemovalEffect
    p: float
    draws: int
    examples: int
    metric: str
    unit: str

    @classmethod
    def of(cls, found: Verdict) -> DetectorVerdict:
        """What is kept of a verdict."""
        effects = {head: RemovalEffect.of(effect) for head, effect in found.effects.items()}
        group, metric = found.group, found.metric
        return cls(
            found.verdicts, effects, RemovalEffect.of(group), group.p, DRAWS, found.examples, metric.name, metric.unit
        )


@dataclass(frozen=True)
class TaskVerdict:
    """The verdicts of one task by the name of the detector; a detector that cannot be judged on the model is missing."""

    task: str
    detectors: Mapping[str, DetectorVerdict]
    seconds: float

    def save(self, folder: Path) -> None:
        """Write <task>.json in `folder`, which is made where it is missing. Raises StoreError."""
        found = {
            name: {
                "heads": {str(head): head_json(head, one) for head in one.verdicts},
                "group": group_json(one),
            }
            for name, one in self.detectors.items()
        }
        write_kept(folder, self.task, {"detectors": found, "seconds": self.seconds})

    @classmethod
    def load(cls, folder: Path, task: str) -> TaskVerdict | None:
        """The verdicts that `save` left in `folder`; None where there are none. Raises StoreError where they are damaged."""
        return read_kept(
            folder, task, KeptVerdict, lambda kept: cls(task, _read_detectors(kept["detectors"]), kept["seconds"])
        )


def verdict_on(verdicts: Mapping[str, TaskVerdict] | None, task: str, detector: str) -> DetectorVerdict | None:
    """The verdict on a detector among those of several tasks, by name; None where there is none."""
    found = verdicts.get(task) if verdicts is not None else None
    return found.detectors.get(detector) if found is not None else None


def effect_json(effect: RemovalEffect | None) -> dict[str, float | None]:
    """An effect in the words of atlas.json; nulls where nothing was measured."""
    names = {
        "effect": "effect",
        "effect_low": "low",
        "effect_high": "high",
        "random_effect": "random_effect",
        "random_median": "random_median",
    }
    return {name: getattr(effect, field) if effect is not None else None for name, field in names.items()}


def head_json(head: HeadId, verdict: DetectorVerdict | None) -> dict[str, Any]:
    """The verdict on an observed head in the words of atlas.json."""
    if verdict is None:
        return {"verdict": "untested", **effect_json(None)}
    return {"verdict": verdict.verdicts[head], **effect_json(verdict.effects[head])}


def group_json(found: DetectorVerdict) -> dict[str, Any]:
    """The key "group" of a detector in atlas.json."""
    return {
        **effect_json(found.group), "p": found.p, "draws": found.draws, "examples": found.examples,
        "metric": found.metric, "unit": found.unit,
    }  # fmt: skip


def _read_effect(row: Mapping[str, Any]) -> RemovalEffect:
    names = ("effect", "effect_low", "effect_high", "random_effect", "random_median")
    return RemovalEffect(*(number(row[name]) for name in names))


def _read_detectors(entries: Mapping[str, Any]) -> dict[str, DetectorVerdict]:
    found = {}
    for name, entry in entries.items():
        heads = {HeadId.parse(head): row for head, row in entry["heads"].items()}
        group = entry["group"]
        found[name] = DetectorVerdict(
            {head: row["verdict"] for head, row in heads.items()},
            {head: _read_effect(row) for head, row in heads.items()},
            _read_effect(group),
            number(group["p"]),
            group["draws"],
            group["examples"],
            group["metric"],
            group["unit"],
        )
    return found
