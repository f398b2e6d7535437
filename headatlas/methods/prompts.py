"""What a model is measured on: prompts of a built-in task, of a user's file, or a batch of one's own, with their metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headatlas.errors import BadInput
from headatlas.methods.sweeps.task_gate import Gate, gate_of_prompts, gate_on_held_out
from headatlas.model import Model
from headatlas.model.text.start_end import said_of
from headatlas.progress import Progress, Silent
from headatlas.prompts_file import read_prompts
from headatlas.renamed import old_names
from headatlas.task import Batch, Metric, Task, find_task, logit_difference


@dataclass(frozen=True)
class Prompts:
    """Which prompts a model is measured on; one of task, prompts and batch says where they come from.

    task: a built-in task, of which `n` prompts are drawn with `seed`. prompts: a JSONL file with clean, answer, wrong, and
    corrupted if wanted. batch: prompts already made. metric: how answers are scored; default the task's own, else the logit
    difference. force: measure although the model cannot do the task. Raises BadInput unless exactly one source is given.

    >>> Prompts("ioi", n=16).n
    16
    """

    task: str | None = None
    prompts: str | Path | None = None
    n: int = 32
    seed: int = 0
    force: bool = False
    batch: Batch | None = None
    metric: Metric | None = None

    def __post_init__(self) -> None:
        if sum(source is not None for source in (self.task, self.prompts, self.batch)) != 1:
            raise BadInput(
                "Say what the prompts are.", "Give either --task NAME (headatlas list tasks) or --prompts FILE.jsonl."
            )


@dataclass(frozen=True)
class MeasuredPrompts:
    """Prompts as one model reads them, and how it is scored on them.

    name: of the task or file. facts: what results say of them. task: None where they are not of a built-in task; then
    there are no further prompts to draw. seed: of the draw.
    """

    name: str
    batch: Batch
    metric: Metric
    facts: Mapping[str, Any] = field(default_factory=dict)
    task: Task | None = None
    seed: int = 0


def prompts_for(
    model: Model, given: Batch | Prompts, progress: Progress | None = None, *, demand: bool = True
) -> MeasuredPrompts:
    """The prompts that a model is measured on, after a look at whether it can do them.

    A batch is taken as it is. Of a task or a file, the model's metric is told to `progress`, and a model that cannot do it
    is refused unless forced. demand=False: no such look. Raises BadInput, UnknownName, UnfitTask.
    """
    given = Prompts(batch=given) if isinstance(given, Batch) else given
    if given.batch is not None:
        facts = {"start_end": said_of(given.batch.facts)}
        return MeasuredPrompts(
            "prompts of one's own", given.batch, given.metric or logit_difference, facts, seed=given.seed
        )
    found = _of_task(model, given) if given.task is not None else _of_file(model, given)
    if demand:
        _demand_able(model, found, given, progress or Silent())
    return found


def _of_file(model: Model, given: Prompts) -> MeasuredPrompts:
    batch = read_prompts(str(given.prompts), model.tokenizer)
    if "answer" not in batch.labels:
        raise BadInput(
            f"{given.prompts} has labelled texts, and no answers to measure.",
            'Lines need "clean", "answer", "wrong".',
        )
    facts = {"prompts_file": Path(str(given.prompts)).name, "n": len(batch), "start_end": said_of(batch.facts)}
    return MeasuredPrompts(str(given.prompts), batch, given.metric or logit_difference, facts, seed=given.seed)


def _of_task(model: Model, given: Prompts) -> MeasuredPrompts:
    task = find_task(str(given.task))
    batch, metric = task(model.tokenizer, given.n, given.seed), given.metric or task.metric
    if metric is None:
        raise BadInput(f"Task {task.name} has no metric, so no effects can be measured on it.", "Choose another task.")
    facts = {
        "task": task.name,
        "task_version": task.version,
        "n": given.n,
        "seed": given.seed,
        "start_end": said_of(batch.facts),
    }
    return MeasuredPrompts(str(given.task), batch, metric, facts, task, given.seed)


def _demand_able(model: Model, found: MeasuredPrompts, given: Prompts, progress: Progress) -> None:
    """Say how well the model does on prompts like these; raise BadInput where it does not, unless forced."""
    gate: Gate
    if found.task is not None:
        gate = gate_on_held_out(model, found.task, seed=found.seed)
    else:
        gate = gate_of_prompts(model, found.batch, found.metric)
    progress.say(f"{found.name}: {gate.metric.name} {gate.value:.2f} {gate.metric.unit}, floor {gate.floor:.2f}")
    if not given.force:
        gate.demand(model, found.name)


__getattr__ = old_names(__name__)
