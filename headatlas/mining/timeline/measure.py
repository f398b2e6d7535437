"""What detectors measure in each checkpoint of a training, on the same batches; kept, so that only what is new is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headatlas.detector import Detector
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import metric_on
from headatlas.mining.planning import Plan
from headatlas.mining.scan import TOKENS_AT_ONCE, scan
from headatlas.mining.timeline.matching import sketches
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.store import read_arrays, write_arrays
from headatlas.task import Task

_SKETCH = "sketch"


@dataclass(frozen=True)
class Measured:
    """One checkpoint. arrays: by the names of `named`, scores and chance [example, head], metrics [example]; sketches [head, n]."""

    arrays: Mapping[str, Array]

    def scores(self, detector: Detector) -> tuple[Array, Array] | None:
        """(values, control) of a detector, [example, head] each; None where it was not measured."""
        names = _named(detector)
        return (self.arrays[names[0]], self.arrays[names[1]]) if names[0] in self.arrays else None

    def metric(self, task: Task) -> Array | None:
        """A task's metric [example]; None where the model has none."""
        return self.arrays.get(_metric(task))

    @property
    def sketch(self) -> Array:
        """[head, n] a sketch of each head's weights."""
        return self.arrays[_SKETCH]


def _named(detector: Detector) -> tuple[str, str]:
    name = f"{detector.name} {detector.version} on {detector.task.name} {detector.task.version}"
    return f"values {name}", f"control {name}"


def _metric(task: Task) -> str:
    return f"metric {task.name} {task.version}"


def kept(folder: Path | None, sha256: str, chosen: Plan, heads: Sequence[HeadId]) -> Measured:
    """What a folder has of a checkpoint with these weights; nothing where there is none. Raises StoreError where it is damaged."""
    path = _place(folder, sha256)
    arrays = read_arrays(path) if path is not None and path.exists() else {}
    for group in chosen.by_task.items():
        for detector in group[1]:
            for name in _named(detector):
                if name in arrays and arrays[name].shape[1:] != (len(heads),):
                    raise BadInput(f"{path} is of a model with other heads.", "Choose another folder with --out.")
    return Measured(arrays)


def _place(folder: Path | None, sha256: str) -> Path | None:
    return None if folder is None else folder / "checkpoints" / f"{sha256[:24]}.npz"


def missing(found: Measured, chosen: Plan) -> dict[Task, list[Detector]]:
    """The detectors that are yet to be asked of a checkpoint, by task."""
    left = {task: [one for one in group if found.scores(one) is None] for task, group in chosen.by_task.items()}
    return {task: group for task, group in left.items() if group}


def measured(model: Model, chosen: Plan, found: Measured, folder: Path | None, sha256: str) -> Measured:
    """What was found with what was missing, which is kept in the folder. Raises StoreError."""
    arrays = dict(found.arrays)
    for task, group in missing(found, chosen).items():
        batch = chosen.batches[task]
        size = max(1, TOKENS_AT_ONCE // batch.tokens.shape[1])
        new = scan(model, group, batch, metric=metric_on(model, task), size=size, mean_z=False)
        for detector in group:
            if detector.name in new.scores:
                one = new.scores[detector.name]
                arrays |= dict(zip(_named(detector), (one.values, one.control), strict=True))
            else:  # refused: the model cannot be asked
                nothing = np.full((len(batch), len(model.heads)), np.nan)
                arrays |= dict.fromkeys(_named(detector), nothing)
        if new.metric is not None:
            arrays[_metric(task)] = np.asarray(new.metric, dtype=float)
    if _SKETCH not in arrays:
        arrays[_SKETCH] = sketches(model)
    path = _place(folder, sha256)
    if path is not None:
        write_arrays(path, arrays)
    return Measured(arrays)
