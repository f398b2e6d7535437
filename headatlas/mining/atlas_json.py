"""The content of atlas.json, made of the facts of model and run and the records of all tasks."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from headatlas.mining.task_scan import DetectorScan, Skipped, TaskScan, detector_json
from headatlas.mining.task_verdict import TaskVerdict, verdict_on
from headatlas.mining.twins import Counts
from headatlas.model import Model
from headatlas.model.structure.wrapping import adapters_of
from headatlas.report.atlas_schema import SCHEMA
from headatlas.report.head_line import line_of
from headatlas.version import __version__


@dataclass(frozen=True)
class ModelFacts:
    """The key "model" of atlas.json. n_heads: of the layer with the most; n_kv_heads, d_head: of the first layer.

    stack_heads: by stack the number of heads of each layer, no key where there is one stack. adapters: of PEFT, as `adapters_of` gives
    them; no key where there are none.
    """

    name: str
    source: str
    revision: str | None
    sha256: str
    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    dtype: str
    attention_path: str
    stacks: tuple[str, ...]
    stack_heads: dict[str, list[int]]
    adapters: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, model: Model) -> ModelFacts:
        """The facts of a model; one that came from no file is known by its weights."""
        source, first = model.source, model.layers[0]
        return cls(
            name=model.name,
            source=source.origin if source is not None else "in memory",
            revision=source.revision if source is not None else None,
            sha256=model.sha256(),
            architecture=model.architecture,
            n_layers=model.n_layers,
            n_heads=max(layer.n_heads for layer in model.layers),
            n_kv_heads=first.n_groups,
            d_model=model.d_model,
            d_head=first.d_head,
            dtype=str(model.dtype).removeprefix("torch."),
            attention_path=model.path,
            stacks=model.stacks,
            stack_heads=_heads_by_layer(model) if len(model.stacks) > 1 else {},
            adapters=tuple(adapters_of(model.hf)),
        )


def _heads_by_layer(model: Model) -> dict[str, list[int]]:
    """How many heads each layer of each stack has, 0 for layers without attention."""
    found: dict[str, list[int]] = {}
    for layer in model.layers:
        counts = found.setdefault(layer.stack, [])
        counts += [0] * (layer.index + 1 - len(counts))
        counts[layer.index] = layer.n_heads
    return found


@dataclass(frozen=True)
class RunFacts:
    """The key "run" of atlas.json; `seconds` there also has what the tasks took. load_seconds: what loading the model took."""

    id: str
    created: str
    seed: int
    n: int
    device: str
    bos: str
    versions: Mapping[str, str]
    load_seconds: float
    checks: tuple[str, ...] = ()
    tasks: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def now(
        cls,
        model: Model,
        run_id: str,
        *,
        n: int,
        seed: int,
        checks: Sequence[str] = (),
        tasks: Mapping[str, int] | None = None,
    ) -> RunFacts:
        """The facts of a run on `model` that ends now, with the versions of this program, its libraries and the tasks."""
        return cls(
            id=run_id,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            seed=seed,
            n=n,
            device=str(model.device),
            bos=model.tokenizer.bos_policy,
            versions={
                "headatlas": __version__,
                "torch": torch.__version__,
                "transformers": version("transformers"),
                "python": platform.python_version(),
            },
            load_seconds=model.load_seconds,
            checks=tuple(checks),
            tasks=dict(tasks or {}),
        )


def atlas_json(
    model: ModelFacts,
    run: RunFacts,
    skipped: Sequence[Skipped],
    scans: Sequence[TaskScan],
    verdicts: Mapping[str, TaskVerdict] | None,
    twins: Counts | None = None,
) -> dict[str, Any]:
    """The content of atlas.json, with NaN where a number is not defined.

    twins: what was found in models that have learned nothing, where these were asked for. skipped: the detectors that were not run at all. verdicts: by task; a task on which there was nothing to judge is
    missing; None where no verdicts were asked for.
    """
    detectors = [_detector(run, scan, found, verdicts, twins or {}) for scan in scans for found in scan.detectors]
    seconds = {
        "load": run.load_seconds,
        "forward": sum(scan.forward_seconds for scan in scans),
        "detect": sum(scan.detect_seconds for scan in scans),
        "verdict": sum(found.seconds for found in (verdicts or {}).values()),
        **{
            f"check {name}": sum(found.check_seconds.get(name, 0.0) for found in (verdicts or {}).values())
            for name in dict.fromkeys(name for found in (verdicts or {}).values() for name in found.check_seconds)
        },
    }
    facts = asdict(run)
    del facts["load_seconds"]
    return {
        "schema": SCHEMA,
        "model": {
            name: value for name, value in asdict(model).items() if name not in ("adapters", "stack_heads") or value
        },
        "run": {**facts, "seconds": seconds},
        "detectors": sorted(detectors, key=lambda one: str(one["name"])),
        "skipped": [asdict(one) for one in (*skipped, *(one for scan in scans for one in scan.skipped))],
    }


def _detector(
    run: RunFacts,
    scan: TaskScan,
    found: DetectorScan,
    verdicts: Mapping[str, TaskVerdict] | None,
    twins: Counts,
) -> dict[str, Any]:
    """A detector's part, with its verdict or with the reason why there is none."""
    verdict, reason = verdict_on(verdicts, scan.task, found.name), ""
    if verdicts is None:
        reason = "verdicts were switched off"
    elif verdict is None and found.observed:
        reason = "its verdict cannot be measured on this model"
    content = detector_json(scan, found, verdict, reason, prompts="prompts" in run.checks)
    content["task_version"] = run.tasks.get(scan.task)
    content["twins"] = [asdict(one) for one in twins.get((scan.task, found.name), ())]
    for row in content["heads"]:
        row["line"] = line_of(content, row)
    return content
