"""What one pass over a task's batch found, as a typed record that is kept while the run is under way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.mining.checks import over_prompts
from headatlas.mining.checks.records import DetectorVerdict
from headatlas.mining.kept import number, read_kept, write_kept
from headatlas.mining.task_verdict import group_json, head_json
from headatlas.ops.types import Array, LayerKey
from headatlas.reading import Name, Number, Record
from headatlas.report.atlas_schema import Attention, Detector, Line, SkippedDetector
from headatlas.scores import HeadScore, grid
from headatlas.store import read_arrays


class _Kept(Detector):
    """A detector's part of atlas.json with a line for every head."""

    all: Annotated[list[Line], Field(max_length=1_000_000)]


class _Examples(Record):
    detector: Name
    values: list[list[Number]]
    control: list[list[Number]]


class _Seconds(Record):
    forward: float
    detect: float


class KeptScan(Record):
    """What a kept scan holds."""

    detectors: list[_Kept]
    examples: list[_Examples]
    attention: dict[str, Attention]
    seconds: _Seconds
    skipped: list[SkippedDetector]
    smallest: Number


NUMBERS = ("score", "low", "high", "chance", "p", "q")  # of a head: the fields of HeadScore


@dataclass(frozen=True)
class Skipped:
    """A detector that is not asked, and why."""

    detector: str
    reason: str


@dataclass(frozen=True)
class Baseline:
    """A model's metric on a task beside its floor, as atlases show it; `methods.sweeps.task_gate.Gate` is how it is told.

    able: whether the model does the task. accuracy, chance: None for metrics that compare no answers.
    """

    metric: str
    value: float
    floor: float
    margin: float
    unit: str
    accuracy: float | None
    chance: float | None
    able: bool


@dataclass(frozen=True)
class AttentionExample:
    """Where observed heads look in one text: for each of them rows (query, key, attention) of the strongest keys.

    left_out: how many of the observed heads, the weakest, are not among them, so that files stay small.
    """

    tokens: tuple[str, ...]
    heads: Mapping[HeadId, tuple[tuple[int, int, float], ...]]
    left_out: int = 0


@dataclass(frozen=True, eq=False)
class DetectorScan:
    """What one detector measured: a line per head, in the order of the model's heads.

    observed: the heads that show what the detector looks for, best first. values, control: [example, head], NaN where undefined.
    attention: None where nothing was observed. about: the detector described for readers. told: what it says of heads in words,
    such as which relations they follow.
    """

    name: str
    head_type: str
    stage: str
    version: int
    minimum_effect: float
    lines: tuple[HeadScore, ...]
    observed: tuple[HeadId, ...]
    values: Array
    control: Array
    attention: AttentionExample | None
    about: Mapping[str, str]
    told: Mapping[HeadId, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TaskScan:
    """What one pass over a task's batch found.

    baseline: None where the model has no metric on the task. smallest: the least effect of a removal that counts, in units
    of the metric; None where the model does not do the task. mean_z: (stack, layer) -> [head, d_value] on the CPU, what heads
    give on average. skipped: detectors that the model cannot be asked.
    """

    task: str
    detectors: tuple[DetectorScan, ...]
    baseline: Baseline | None
    smallest: float | None
    mean_z: Mapping[LayerKey, Tensor]
    skipped: tuple[Skipped, ...]
    forward_seconds: float
    detect_seconds: float

    @property
    def observed(self) -> dict[str, tuple[HeadId, ...]]:
        """The observed heads by the name of the detector."""
        return {found.name: found.observed for found in self.detectors}

    def only(self, names: Iterable[str]) -> TaskScan:
        """The same with these detectors alone."""
        kept = set(names)
        found = tuple(one for one in self.detectors if one.name in kept)
        return replace(self, detectors=found, skipped=tuple(one for one in self.skipped if one.detector in kept))

    @property
    def reason(self) -> str:
        """Why there can be no verdicts on this task; "" where there can."""
        if self.baseline is None:
            return "the model has no metric on this task"
        return "" if self.baseline.able else "the model does not do the task"

    def save(self, folder: Path) -> None:
        """Write <task>.npz and then <task>.json in `folder`, which is made where it is missing. Raises StoreError."""
        mean_z = {f"{stack} {layer}": z.numpy() for (stack, layer), z in self.mean_z.items()}
        content = {
            "detectors": [
                {**detector_json(self, one), "all": [line_json(line) for line in one.lines]} for one in self.detectors
            ],
            "examples": [
                {"detector": one.name, "values": one.values.tolist(), "control": one.control.tolist()}
                for one in self.detectors
            ],
            "attention": attention_json([self]),
            "seconds": {"forward": self.forward_seconds, "detect": self.detect_seconds},
            "skipped": [asdict(one) for one in self.skipped],
            "smallest": self.smallest,
        }
        write_kept(folder, self.task, content, mean_z)

    @classmethod
    def load(cls, folder: Path, task: str) -> TaskScan | None:
        """The scan that `save` left in `folder`; None where there is none. Raises StoreError where it is damaged."""

        def parse(kept: dict[str, Any]) -> TaskScan:
            examples = {one["detector"]: one for one in kept["examples"]}
            entries, seconds = kept["detectors"], kept["seconds"]
            return cls(
                task,
                tuple(_read_detector(entry, examples[entry["name"]], kept["attention"]) for entry in entries),
                _read_baseline(entries),
                kept["smallest"],
                _read_mean_z(folder / f"{task}.npz"),
                tuple(Skipped(one["detector"], one["reason"]) for one in kept["skipped"]),
                seconds["forward"],
                seconds["detect"],
            )

        return read_kept(folder, task, KeptScan, parse)


def detector_json(
    scan: TaskScan,
    found: DetectorScan,
    verdict: DetectorVerdict | None = None,
    reason: str = "",
    *,
    prompts: bool = False,
) -> dict[str, Any]:
    """A detector's part of atlas.json; reason: why there is no verdict, where the scan gives none. prompts: see `observed_json`."""
    stack = _stack_of(found.lines)
    return {
        "name": found.name,
        "head_type": found.head_type,
        "stage": found.stage,
        "task": scan.task,
        "version": found.version,
        "n_examples": len(found.values),
        "minimum_effect": found.minimum_effect,
        "baseline": asdict(scan.baseline) if scan.baseline is not None else None,
        "untested": scan.reason or reason,
        **({"stack": stack} if stack != found.lines[0].head.stack else {}),
        "scores": _grid(found.lines, "score", stack),
        "chance": _grid(found.lines, "chance", stack),
        "heads": observed_json(found, verdict, prompts=prompts),
        "group": group_json(verdict) if verdict is not None else None,
        "about": dict(found.about),
    }


def observed_json(found: DetectorScan, verdict: DetectorVerdict | None, *, prompts: bool) -> list[dict[str, Any]]:
    """The observed heads with numbers, verdict and checks, best first; prompts: also with the check of single prompts."""
    places = {line.head: i for i, line in enumerate(found.lines)}
    rows = []
    for head in found.observed:
        row = {**line_json(found.lines[places[head]]), **head_json(head, verdict)}
        if head in found.told:
            row["told"] = found.told[head]
        if prompts:
            row["checks"].append(asdict(over_prompts.check(found.values, places[head])))
        rows.append(row)
    return rows


def line_json(line: HeadScore) -> dict[str, Any]:
    """A head with its numbers."""
    head = line.head
    place = {"layer": head.layer, "head": head.head, "stack": head.stack}
    return {**place, **{name: getattr(line, name) for name in NUMBERS}}


def attention_json(scans: Sequence[TaskScan]) -> dict[str, Any]:
    """The content of attention.json: by detector an example text and where its observed heads look in it.

    `left_out` stands there where heads were left out, and says how many.
    """
    return {
        found.name: {
            "tokens": found.attention.tokens,
            "task": scan.task,
            "heads": {str(head): rows for head, rows in found.attention.heads.items()},
            **({"left_out": found.attention.left_out} if found.attention.left_out else {}),
        }
        for scan in scans
        for found in scan.detectors
        if found.attention is not None
    }


def _stack_of(lines: Sequence[HeadScore]) -> str:
    """The first stack in which a detector has scores, which its grids are about; the model's first where it has none anywhere."""
    return next((line.head.stack for line in lines if not np.isnan(line.score)), lines[0].head.stack)


def _grid(lines: Sequence[HeadScore], name: str, stack: str) -> list[Any]:
    """[layer, head] of a number in a stack."""
    values = np.array([getattr(line, name) for line in lines])
    rows: list[Any] = grid([line.head for line in lines], values, stack).tolist()
    return rows


def _read_detector(entry: Mapping[str, Any], examples: Mapping[str, Any], attention: Mapping[str, Any]) -> DetectorScan:
    name = entry["name"]
    values, control = (np.array(examples[part], dtype=np.float64) for part in ("values", "control"))  # null becomes NaN
    for part in (values, control):
        if part.ndim != 2 or part.shape[1] != len(entry["all"]):
            raise BadInput(f"{name} has values of the shape {list(part.shape)} for {len(entry['all'])} heads.")
    return DetectorScan(
        name=name,
        head_type=entry["head_type"],
        stage=entry["stage"],
        version=entry["version"],
        minimum_effect=entry["minimum_effect"],
        lines=tuple(HeadScore(_read_head(row), *(number(row[name]) for name in NUMBERS)) for row in entry["all"]),
        observed=tuple(_read_head(row) for row in entry["heads"]),
        values=values,
        control=control,
        attention=_read_attention(attention[name]) if name in attention else None,
        about=entry["about"],
        told={_read_head(row): row["told"] for row in entry["heads"] if row.get("told")},
    )


def _read_head(row: Mapping[str, Any]) -> HeadId:
    return HeadId(row["layer"], row["head"], row["stack"])


def _read_attention(kept: Mapping[str, Any]) -> AttentionExample:
    heads = {HeadId.parse(head): tuple((q, k, weight) for q, k, weight in rows) for head, rows in kept["heads"].items()}
    return AttentionExample(tuple(kept["tokens"]), heads, kept.get("left_out", 0))


def _read_baseline(entries: Sequence[Mapping[str, Any]]) -> Baseline | None:
    """All detectors of a task were measured beside the same baseline."""
    kept = entries[0]["baseline"] if entries else None
    if kept is None:
        return None
    return Baseline(
        kept["metric"],
        number(kept["value"]),
        number(kept["floor"]),
        number(kept["margin"]),
        kept["unit"],
        kept["accuracy"],
        kept["chance"],
        kept["able"],
    )


def _read_mean_z(path: Path) -> dict[LayerKey, Tensor]:
    found = {}
    for name, z in read_arrays(path).items():
        stack, layer = name.split()
        if z.ndim != 2:
            raise BadInput(f"The mean of {name} has the shape {list(z.shape)}, not [head, d_value].")
        found[stack, int(layer)] = torch.from_numpy(z)
    return found
