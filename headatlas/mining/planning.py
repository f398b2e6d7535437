"""What a run will do: which detectors on which tasks, on which examples; and which are left out, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headatlas.detector import Detector, detectors, find_detector
from headatlas.errors import BadInput, UnfitTask
from headatlas.mining.task_scan import Skipped
from headatlas.model import Model
from headatlas.task import Batch, Task, find_task, fitting


@dataclass(frozen=True)
class Plan:
    """What will be run on a model: detectors by task, the tasks' examples, and what is skipped and why."""

    by_task: dict[Task, list[Detector]]
    batches: dict[Task, Batch]
    skipped: list[Skipped]


def plan(model: Model, names: Sequence[str] | None, tasks: Sequence[str] | None, n: int, seed: int) -> Plan:
    """Choose the detectors that fit this model; raises UnknownName for a name that no detector or task has."""
    wanted = [find_detector(name) for name in names] if names else list(detectors().values())
    if tasks:
        wanted = _asked_on([find_task(name) for name in dict.fromkeys(tasks)], wanted)
    kinds = {layer.causal for layer in model.layers if layer.stack != "cross"}
    chosen: dict[Task, list[Detector]] = {}
    skipped: list[Skipped] = []
    batches: dict[Task, Batch] = {}
    unfit: dict[Task, str] = {}
    for detector in wanted:
        reason = ""
        if not ((detector.causal and True in kinds) or (detector.encoder and False in kinds)):
            reason = f"made for models that read {'one way' if detector.causal else 'both ways'}"
        elif "unembedding" in detector.needs and model.unembedding is None:
            reason = "needs token logits, and this model has no linear unembedding"
        elif "unembedding" in detector.needs and any(layer.indirect for layer in model.layers):
            reason = "needs what heads write into the residual stream, and this model's writes enter it indirectly"
        elif detector.task not in chosen and detector.task not in unfit:
            try:
                batches[detector.task] = fitting(detector.task, model.tokenizer, n, seed)
            except UnfitTask as error:
                unfit[detector.task] = str(error)
        reason = reason or unfit.get(detector.task, "")
        if reason:
            skipped.append(Skipped(detector.name, reason))
        else:
            chosen.setdefault(detector.task, []).append(detector)
    return Plan(chosen, batches, skipped)


def _asked_on(tasks: Sequence[Task], wanted: Sequence[Detector]) -> list[Detector]:
    """The detectors of these tasks, and those that may be asked on one of them in place of their own."""
    chosen = [replace(d, task=task) for task in tasks for d in wanted if task == d.task or task in d.also]
    names = ", ".join(task.name for task in tasks)
    if not chosen:
        raise BadInput(f"No detector asked for uses the task {names}.", "See: headatlas list detectors")
    twice = sorted(name for name, n in Counter(d.name for d in chosen).items() if n > 1)
    if twice:
        raise BadInput(
            f"{' and '.join(twice)} can be asked on one task at a time, not on {names}.",
            "Mine each into its own folder.",
        )
    return chosen
