"""The same detectors on models of the same shape that have learned nothing: what they observe there is what chance gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headatlas.detector import Detector
from headatlas.errors import HeadAtlasError
from headatlas.mining.planning import Plan
from headatlas.mining.scan import scan_task
from headatlas.mining.task_scan import TaskScan
from headatlas.model import Model, attach
from headatlas.model.random_weights import untrained_twin, weight_shuffled
from headatlas.progress import Progress
from headatlas.report.head_line import TWINS

KINDS = tuple(TWINS)


@dataclass(frozen=True)
class TwinCount:
    """What one detector found in a twin: of how many heads it observed how many, and its best score.

    reason: why it was not asked there; "" where it was.
    """

    kind: str
    observed: int = 0
    heads: int = 0
    best: float = float("nan")
    reason: str = ""


Counts = Mapping[tuple[str, str], Sequence[TwinCount]]  # (task, detector) -> one for each kind of twin


def twin_of(model: Model, kind: str, seed: int) -> Model:
    """The model with random weights ("twin"), or with its attention weights in random order ("shuffled"). Raises UnsupportedModel."""
    make: Any = untrained_twin if kind == "twin" else weight_shuffled
    return attach(make(model.hf, seed=seed), tokenizer=model.tokenizer)


def scanned(
    model: Model, chosen: Plan, kinds: Sequence[str], folder: Path, seed: int, progress: Progress
) -> dict[tuple[str, str], list[TwinCount]]:
    """Every detector's count in every kind of twin, on the examples of the run; scans are kept in `folder`."""
    found: dict[tuple[str, str], list[TwinCount]] = {}
    for kind in kinds:
        twin: Model | None = None
        for task, group in chosen.by_task.items():
            step = f"{task.name}: {TWINS[kind]}"
            kept = TaskScan.load(folder / kind, task.name)
            try:
                if kept is None:
                    twin = twin or twin_of(model, kind, seed)
                    progress.say(f"{step}.")
                    kept = scan_task(twin, task, group, chosen.batches[task])
                    folder.mkdir(exist_ok=True)
                    kept.save(folder / kind)
                counts = _counts(kept, kind, group)
            except HeadAtlasError as error:
                counts = {one.name: TwinCount(kind, reason=str(error)) for one in group}
            for name, one in counts.items():
                found.setdefault((task.name, name), []).append(one)
    return found


def _counts(scan: TaskScan, kind: str, group: Sequence[Detector]) -> dict[str, TwinCount]:
    reasons = {one.detector: one.reason for one in scan.skipped}
    found = {one.name: TwinCount(kind, reason=reasons.get(one.name, "was not asked")) for one in group}
    for one in scan.detectors:
        scores = np.array([line.score for line in one.lines])
        known = scores[~np.isnan(scores)]
        best = float(known.max()) if len(known) else float("nan")
        found[one.name] = TwinCount(kind, len(one.observed), len(known), best)
    return found
