"""The verdicts of a run: on which examples heads are removed, by which removal, against which other heads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from headatlas.detector import Detector
from headatlas.errors import BadInput, UnfitTask, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import Removal, judge
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining.scan import metric_on
from headatlas.mining.task_scan import TaskScan
from headatlas.mining.task_verdict import DetectorVerdict, TaskVerdict
from headatlas.model import Model
from headatlas.progress import Part, Progress
from headatlas.task import Batch, Task, fitting, held_out

EXAMPLES = 8  # held-out examples on which heads are ablated, more where they are shorter than
CONTEXT = 48  # tokens, their longest length where the task allows it: a verdict costs hundreds of runs
LOSSES = 16  # positions per example at which a loss is read
TOKENS = 32_768  # of all examples together, at least four: their keys and values are kept in memory
SEED = 1_000_003


def judge_task(
    model: Model,
    task: Task,
    detectors: Sequence[Detector],
    scan: TaskScan,
    *,
    assigned: Iterable[HeadId],
    n: int,
    seed: int,
    progress: Progress,
) -> TaskVerdict:
    """A verdict for each detector that observed heads in `scan`, on examples that were not used to find them.

    detectors: those that were scanned. assigned: heads in which any detector of any task observed something, see
    `observed_in`. n: examples that the scan had. Raises BadInput where the model does not do the task.
    """
    metric = metric_on(model, task)
    if metric is None or scan.smallest is None:
        raise BadInput(f"{model.name} gets no verdicts on {task.name}: {scan.reason or 'it has no metric there'}.")
    began = time.perf_counter()
    batch = fresh(model, task, n, seed)
    half = batch.rows(slice(0, max(1, len(batch) // 2)))
    removals: dict[str | None, tuple[Removal, Removal]] = {}
    observed = scan.observed
    taken = {head for heads in observed.values() for head in heads}
    step, others = step_of(task), tuple(assigned)
    found = {}
    for detector in detectors:
        heads = observed.get(detector.name, ())
        if not heads:
            continue
        progress.say(f"{step} on {len(heads)} heads observed by {detector.name}.")
        try:
            own, verdict_positions = detector.removal, detector.verdict_positions
            if own is not None:
                pair = own(model, batch, metric), own(model, half, metric)
            else:
                if verdict_positions not in removals:
                    whole, part = (
                        ablated(model, one, metric, scan.mean_z, _positions(one, verdict_positions))
                        for one in (batch, half)
                    )
                    removals[verdict_positions] = whole, part
                pair = removals[verdict_positions]
            verdict = judge(
                *pair,
                heads,
                taken,
                assigned=others,
                smallest=scan.smallest,
                seed=seed,
                progress=Part(progress, step),
            )
            found[detector.name] = DetectorVerdict.of(verdict)
        except UnsupportedModel as error:
            progress.say(f"{task.name}: no verdict on {detector.name}: {error}")
    return TaskVerdict(task.name, found, time.perf_counter() - began)


def observed_in(scans: Iterable[TaskScan]) -> frozenset[HeadId]:
    """Heads in which any detector observed something."""
    return frozenset(head for scan in scans for heads in scan.observed.values() for head in heads)


def can_be_judged(scan: TaskScan) -> bool:
    """Whether there is something to judge, and the model does the task."""
    return scan.smallest is not None and any(scan.observed.values())


def step_of(task: Task) -> str:
    """What the verdicts of a task are called in reports of progress."""
    return f"{task.name}: verdict"


def steps(scan: TaskScan) -> int:
    """How many steps `judge_task` will report."""
    return sum(len(heads) + 1 for heads in scan.observed.values() if heads)


def fresh(model: Model, task: Task, n: int, seed: int) -> Batch:
    """Examples for verdicts: of the task's other half where it has one, short where it can be; about as many tokens always."""
    other, seed = held_out(task) or task, seed + SEED
    for words in (model.tokenizer.within(CONTEXT), model.tokenizer):
        try:
            few = other(words, min(n, EXAMPLES), seed)
        except UnfitTask:
            continue
        count = EXAMPLES * CONTEXT // few.tokens.shape[1]
        if count <= len(few):
            return _thinned(few.rows(slice(0, max(4, TOKENS // few.tokens.shape[1]))))
        return _thinned(fitting(other, words, min(n, count), seed))
    return _thinned(fitting(other, model.tokenizer, min(n, EXAMPLES), seed))


def _thinned(batch: Batch) -> Batch:
    """The batch with the loss read at no more than about LOSSES positions per example: logits cost much memory and time."""
    positions = batch.positions.get("predict")
    if positions is None or positions.shape[1] <= LOSSES:
        return batch
    return replace(batch, positions={**batch.positions, "predict": positions[:, :: positions.shape[1] // LOSSES]})


def _positions(batch: Batch, verdict_positions: str | None) -> Tensor | None:
    return None if verdict_positions is None else batch.positions[verdict_positions].reshape(len(batch), -1)
