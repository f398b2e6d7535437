"""What the verdicts of one task gave, as a typed record that is kept while the run is under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from headatlas.heads import HeadId
from headatlas.mining.checks.records import Check, DetectorVerdict, HeadVerdict, RemovalEffect, SetVerdict
from headatlas.mining.kept import number, read_kept, write_kept
from headatlas.reading import Record
from headatlas.report.atlas_schema import Group, Judged


class _Detector(Record):
    heads: dict[str, Judged]
    group: Group


class KeptVerdict(Record):
    """What a kept verdict holds."""

    detectors: dict[str, _Detector]
    seconds: float
    check_seconds: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class TaskVerdict:
    """The verdicts of one task by the name of the detector; a detector that cannot be judged on the model is missing.

    check_seconds: how much of `seconds` went to each of the checks that can be switched off.
    """

    task: str
    detectors: Mapping[str, DetectorVerdict]
    seconds: float
    check_seconds: Mapping[str, float] = field(default_factory=dict)

    def behind(self, earlier: TaskVerdict) -> TaskVerdict:
        """What was found before an interruption and this, as one."""
        checks = {name: earlier.check_seconds.get(name, 0.0) + took for name, took in self.check_seconds.items()}
        detectors = {**earlier.detectors, **self.detectors}
        return TaskVerdict(self.task, detectors, earlier.seconds + self.seconds, {**earlier.check_seconds, **checks})

    def save(self, folder: Path) -> None:
        """Write <task>.json in `folder`, which is made where it is missing. Raises StoreError."""
        found = {
            name: {
                "heads": {str(head): head_json(head, one) for head in one.heads},
                "group": group_json(one),
            }
            for name, one in self.detectors.items()
        }
        content = {"detectors": found, "seconds": self.seconds, "check_seconds": dict(self.check_seconds)}
        write_kept(folder, self.task, content)

    @classmethod
    def load(cls, folder: Path, task: str) -> TaskVerdict | None:
        """The verdicts that `save` left in `folder`; None where there are none. Raises StoreError where they are damaged."""

        def parse(kept: dict[str, Any]) -> TaskVerdict:
            return cls(task, _read_detectors(kept["detectors"]), kept["seconds"], kept.get("check_seconds") or {})

        return read_kept(folder, task, KeptVerdict, parse)


def verdict_on(verdicts: Mapping[str, TaskVerdict] | None, task: str, detector: str) -> DetectorVerdict | None:
    """The verdict on a detector among those of several tasks, by name; None where there is none."""
    found = verdicts.get(task) if verdicts is not None else None
    return found.detectors.get(detector) if found is not None else None


_EFFECT = {
    "effect": "effect",
    "effect_low": "low",
    "effect_high": "high",
    "random_effect": "random_effect",
    "random_median": "random_median",
    "random_p": "random_p",
    "random_effect_low": "random_low",
    "random_effect_high": "random_high",
    "random_ordinary": "random_ordinary",
    "effect_p": "p",
    "effect_examples": "examples",
    "too_few_events": "few",
}  # in atlas.json -> in RemovalEffect


def effect_json(effect: RemovalEffect | None) -> dict[str, Any]:
    """An effect in the words of atlas.json; nulls where nothing was measured."""
    return {name: getattr(effect, field) if effect is not None else None for name, field in _EFFECT.items()}


def head_json(head: HeadId, verdict: DetectorVerdict | None) -> dict[str, Any]:
    """The verdict on an observed head in the words of atlas.json."""
    if verdict is None:
        return {
            "verdict": "untested", "marginal": False, "works": "", "carries": "", **effect_json(None), "effect_q": None, "beside_others": None,
            "checks": [],
        }  # fmt: skip
    found = verdict.heads[head]
    return {
        "verdict": found.verdict,
        "marginal": found.marginal,
        "works": found.works,
        "carries": found.carries,
        **effect_json(found.alone),
        "effect_q": found.q,
        "beside_others": effect_json(found.beside) if found.beside is not None else None,
        "checks": [asdict(check) for check in found.checks],
    }


def group_json(found: DetectorVerdict) -> dict[str, Any]:
    """The key "group" of a detector in atlas.json: all its observed heads removed, and those that are not causal alone."""
    group = found.group
    return {
        **effect_json(group.whole),
        "heads": [str(head) for head in group.heads],
        "rest": effect_json(group.rest) if group.rest is not None else None,
        "draws": group.draws, "smallest": found.smallest, "free_heads": found.free, "measured_heads": found.measured,
        "examples": found.examples, "metric": found.metric, "unit": found.unit,
        "leads": {str(head): effect for head, effect in found.leads.items()},
    }  # fmt: skip


def _read_effect(row: Mapping[str, Any]) -> RemovalEffect:
    whole = ("examples", "few")
    values: dict[str, Any] = {
        field: row[name] if field in whole else number(row[name]) for name, field in _EFFECT.items()
    }
    return RemovalEffect(**values)


def _read_parts(check: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    return {name: (number(v), number(low), number(high)) for name, (v, low, high) in check["parts"].items()}


def _read_head(row: Mapping[str, Any]) -> HeadVerdict:
    beside = row["beside_others"]
    checks = tuple(
        Check(
            **{**check, **{name: number(check[name]) for name in ("value", "low", "high")}, "parts": _read_parts(check)}
        )
        for check in row["checks"]
    )
    return HeadVerdict(
        _read_effect(row),
        _read_effect(beside) if beside is not None else None,
        row["verdict"],
        row["works"],
        number(row["effect_q"]),
        checks,
        row["marginal"],
    )


def _read_detectors(entries: Mapping[str, Any]) -> dict[str, DetectorVerdict]:
    found = {}
    for name, entry in entries.items():
        group = entry["group"]
        rest = _read_effect(group["rest"]) if group["rest"] is not None else None
        together = SetVerdict(_read_effect(group), tuple(map(HeadId.parse, group["heads"])), rest, group["draws"])
        facts = {
            field: group[name]
            for name, field in (
                ("smallest", "smallest"), ("free_heads", "free"), ("measured_heads", "measured"), ("examples", "examples"),
                ("metric", "metric"), ("unit", "unit"),
            )
        }  # fmt: skip
        heads = {HeadId.parse(head): _read_head(row) for head, row in entry["heads"].items()}
        leads = {HeadId.parse(head): number(effect) for head, effect in group["leads"].items()}
        found[name] = DetectorVerdict(heads, together, **facts, leads=leads)
    return found
