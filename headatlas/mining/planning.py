"""What a run will do: which detectors on which tasks, on which examples; and which are left out, and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from headatlas.detector import Detector, LayerDetector, detectors
from headatlas.errors import BadInput, UnfitTask
from headatlas.mining.checks.fresh import others_than
from headatlas.mining.own import OwnTasks, chosen_detectors, chosen_tasks, demand_contract, lacking
from headatlas.mining.task_scan import Skipped
from headatlas.model import Model
from headatlas.task import Batch, Task, Vocabulary, fitting

FURTHER = 2_000_003  # other examples than those heads are found on at first, and than those of verdicts
TIMED = 512  # tokens on which the machine's speed is measured: passes over fewer than 2,048 are about as fast a token
LEAST = 4  # examples that give a p-value


@dataclass(frozen=True)
class Plan:
    """What will be run on a model: detectors by task, the tasks' examples, and what is skipped and why.

    labelling: by task every installed detector that can be asked on it, chosen or not: a head that one of them observes is no
    random head to compare others with, whoever asked for what.
    """

    by_task: dict[Task, list[Detector]]
    batches: dict[Task, Batch]
    skipped: list[Skipped]
    labelling: dict[Task, list[Detector]] = field(default_factory=dict)


def plan(
    model: Model,
    names: Sequence[str | Path | Detector] | None,
    tasks: OwnTasks | None,
    n: int,
    seed: int,
) -> Plan:
    """Choose the detectors that fit this model; raises UnknownName for a name that no detector or task has."""
    wanted = chosen_detectors(names) if names else list(detectors().values())
    for detector in wanted if names else ():  # those of installed packages were looked at when they were found
        if not detector.module.startswith("headatlas."):
            demand_contract(detector, model)
    if tasks:
        wanted = _asked_on(list(dict.fromkeys(chosen_tasks(tasks, model))), wanted, named=bool(names))
    chosen: dict[Task, list[Detector]] = {}
    skipped: list[Skipped] = []
    batches: dict[Task, Batch] = {}
    too_few: dict[Task, str] = {}
    for detector in wanted:
        reason = misfit(detector, model)
        if not reason and detector.task not in chosen and detector.task not in too_few:
            try:
                batches[detector.task] = fitting(detector.task, model.tokenizer, n, seed)
            except UnfitTask as error:
                too_few[detector.task] = str(error)
        if not reason and detector.task in batches and detector.task.given:
            reason = lacking(detector, batches[detector.task])
        reason = reason or too_few.get(detector.task, "")
        if reason:
            skipped.append(Skipped(detector.name, reason))
        else:
            chosen.setdefault(detector.task, []).append(detector)
    if not chosen and any(detector.task.given for detector in wanted):
        told = "; ".join(f"{one.detector} {one.reason}" for one in skipped[:3])
        raise BadInput(
            f"No detector can be asked on these prompts: {told}.", "Name spans as the detector names its positions."
        )
    batches = {task: batch for task, batch in batches.items() if task in chosen}
    known = [one for one in detectors().values() if not misfit(one, model)]
    return Plan(chosen, batches, skipped, {task: _labelling(task, batch, known) for task, batch in batches.items()})


def further(task: Task, words: Vocabulary, batch: Batch, seed: int) -> Batch | None:
    """As many examples of the task again as `batch` has, or as many as there are that are not in it; None below four."""
    try:
        found = others_than([batch], fitting(task, words, 2 * len(batch), seed + FURTHER), len(batch))
    except UnfitTask:
        return None
    return found if found is not None and len(found) >= LEAST else None


def misfit(detector: Detector, model: Model) -> str:
    """Why a detector cannot be asked of the model, whatever the task; "" where it can."""
    if detector.cross:
        return "" if "cross" in model.stacks else "made for attention from a decoder to an encoder"
    kinds = {layer.causal for layer in model.layers if layer.stack != "cross"}
    if not ((detector.causal and True in kinds) or (detector.encoder and False in kinds)):
        return f"made for models that read {'one way' if detector.causal else 'both ways'}"
    if "unembedding" in detector.needs and model.unembedding is None:
        return "needs token logits, and this model has no linear unembedding"
    if "unembedding" in detector.needs and any(layer.indirect for layer in model.layers):
        return "needs what heads write into the residual stream, and this model's writes enter it indirectly"
    return ""


def _labelling(task: Task, batch: Batch, known: Sequence[Detector]) -> list[Detector]:
    asked = [replace(one, task=task) for one in known if _fits(task, one, named=False)]
    return [one for one in asked if not task.given or not lacking(one, batch)]


def _fits(task: Task, detector: Detector, *, named: bool) -> bool:
    """Whether a detector is asked on a task: its own, one of the same form, or given prompts, where it only looks at layers."""
    own = task.given and (named or isinstance(detector, LayerDetector))
    return own or task == detector.task or task in detector.also


def _asked_on(tasks: Sequence[Task], wanted: Sequence[Detector], *, named: bool) -> list[Detector]:
    """The detectors of these tasks, and those that may be asked on one of them in place of their own."""
    chosen = [replace(d, task=task) for task in tasks for d in wanted if _fits(task, d, named=named)]
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


def tokens_a_second(model: Model, batch: Batch) -> float:
    """How many tokens this machine reads in a second, measured on a few texts of `batch`."""
    part = batch.rows(slice(0, max(1, TIMED // batch.tokens.shape[1])))
    began = time.perf_counter()
    model.forward(part, logit_positions=torch.zeros(1, dtype=torch.long))
    return int(part.mask.sum()) / (time.perf_counter() - began)
