"""The verdicts of a run: on which examples heads are removed, by which removal, against which other heads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from headatlas.detector import Detector
from headatlas.errors import BadInput, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import REWRITING, metric_on, prepared
from headatlas.methods.sweeps.matched_controls import Removal
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.mining.checks import critics
from headatlas.mining.checks.critics import Critics
from headatlas.mining.checks.fresh import SEED, fresh, others_than
from headatlas.mining.checks.judging import Bench, judge, removals
from headatlas.mining.checks.records import DetectorVerdict
from headatlas.mining.checks.settling import settled
from headatlas.mining.task_scan import TaskScan
from headatlas.mining.task_verdict import TaskVerdict
from headatlas.model import Model
from headatlas.ops.memo import asked_together
from headatlas.progress import Part, Progress
from headatlas.task import Batch, Metric, Task


@asked_together()
def judge_task(
    model: Model,
    task: Task,
    detectors: Sequence[Detector],
    scan: TaskScan,
    *,
    n: int,
    seed: int,
    progress: Progress,
    labelled: Iterable[HeadId] | None = None,
    examples: int | None = None,
    checks: Sequence[str] = (),
) -> TaskVerdict:
    """A verdict for each detector that observed heads in `scan`, on examples that were not used to find them.

    detectors: those of `scan` that are asked for. labelled: heads with which no others are compared, None: those in which any
    detector of `scan` observed something; a detector's own are never. n: examples that the scan had. examples: how many verdicts rest on; None: see `fresh`. The verdicts are
    settled over this task alone; `settle` does it over all tasks of a run. checks: further ones, of `critics.JUDGING`. Raises
    BadInput where the model does not do the task.
    """
    *_, whole = judged_one_by_one(
        model,
        task,
        detectors,
        scan,
        n=n,
        seed=seed,
        progress=progress,
        labelled=labelled,
        examples=examples,
        checks=checks,
    )
    return whole


def judged_one_by_one(
    model: Model,
    task: Task,
    detectors: Sequence[Detector],
    scan: TaskScan,
    *,
    n: int,
    seed: int,
    progress: Progress,
    labelled: Iterable[HeadId] | None = None,
    examples: int | None = None,
    checks: Sequence[str] = (),
) -> Iterator[TaskVerdict]:
    """What `judge_task` returns as it grows: once for each detector, those with few observed heads first, the last time whole.

    On the way the verdicts are settled over what is there: false discoveries of detectors to come are not counted yet. Where
    there is nothing to judge, one without detectors comes. What detectors share is computed once while `asked_together` is
    entered.
    """
    metric = metric_on(model, task)
    if metric is None or scan.smallest is None:
        raise BadInput(f"{model.name} gets no verdicts on {task.name}: {scan.reason or 'it has no metric there'}.")
    began = time.perf_counter()
    batch = fresh(model, task, n, seed, examples)
    observed = scan.observed
    taken = frozenset(labelled) if labelled is not None else observed_in([scan])
    step = step_of(task)
    benches: dict[tuple[str, frozenset[HeadId]], Bench] = {}
    asked = sorted((one for one in detectors if observed.get(one.name)), key=lambda one: len(observed[one.name]))
    found: dict[str, DetectorVerdict] = {}

    def so_far() -> TaskVerdict:
        order = [one.name for one in detectors if one.name in found]
        known = settled({name: found[name] for name in order})
        return TaskVerdict(task.name, known, time.perf_counter() - began, dict(beside.seconds))

    beside = Critics(model, task, metric, asked, smallest=scan.smallest, seed=seed + SEED, chosen=checks)
    for detector in asked:
        heads = observed[detector.name]
        progress.say(f"{step} on {len(heads)} heads observed by {detector.name}.")
        removing = _removing(model, metric, detector, scan)
        try:
            # Detectors that remove heads alike, and compare them with the same others, share what was measured.
            way = detector.name if detector.removal is not None else f"at {detector.verdict_positions}"
            key, free = (way, taken.union(heads)), [head for head in model.heads if head not in taken.union(heads)]
            if key not in benches:
                more = _further(model, task, metric, batch, seed, removing)
                benches[key] = Bench(removing(batch), free, more=more, seed=seed)
            judged = judge(
                benches[key],
                heads,
                smallest=scan.smallest,
                first=detector is asked[0],
                progress=Part(progress, step),
            )
            words = next((one.told for one in scan.detectors if one.name == detector.name), {})
            found[detector.name] = beside.ask(
                detector, judged, benches[key], removing, Part(progress, step), told=words
            )
        except UnsupportedModel as error:
            progress.say(f"{task.name}: no verdict on {detector.name}: {error}")
            continue
        if detector is not asked[-1]:
            yield so_far()
    yield so_far()


_Removing = Callable[[Batch], Removal]


def _removing(model: Model, metric: Metric, detector: Detector, scan: TaskScan) -> _Removing:
    """How a detector's heads are removed on a batch."""
    own, at = detector.removal, detector.verdict_positions
    if metric in REWRITING:
        # Its texts have neither the task's places nor its counterfactuals: heads are removed everywhere.
        own = at = None
    if own is not None:
        return lambda batch: own(model, prepared(model, metric, batch), metric)
    return lambda batch: ablated(model, prepared(model, metric, batch), metric, scan.mean_z, _positions(batch, at))


def _further(
    model: Model, task: Task, metric: Metric, batch: Batch, seed: int, removing: _Removing
) -> Callable[[int, int], Removal | None]:
    """(examples so far, examples wanted) -> the removal on examples that were not used before, `batch` included."""
    known = [batch]

    def more(have: int, wanted: int) -> Removal | None:
        further = others_than(known, fresh(model, task, wanted, seed + have, wanted), wanted - have)
        if further is None:
            return None
        known.append(further)
        return removing(further)

    return more


def settle(verdicts: Mapping[str, TaskVerdict]) -> dict[str, TaskVerdict]:
    """The verdicts of all tasks, with false discoveries counted over all of their tests."""
    every = {(task, name): one for task, found in verdicts.items() for name, one in found.detectors.items()}
    known = settled(every)
    return {
        task: replace(found, detectors={name: known[task, name] for name in found.detectors})
        for task, found in verdicts.items()
    }


def observed_in(scans: Iterable[TaskScan]) -> frozenset[HeadId]:
    """Heads in which any detector observed something."""
    return frozenset(head for scan in scans for heads in scan.observed.values() for head in heads)


def can_be_judged(scan: TaskScan) -> bool:
    """Whether there is something to judge, and the model does the task."""
    return scan.smallest is not None and any(scan.observed.values())


def step_of(task: Task) -> str:
    """What the verdicts of a task are called in reports of progress."""
    return f"{task.name}: verdict"


def steps(scan: TaskScan, checks: Sequence[str] = ()) -> int:
    """How many steps `judge_task` will report, with the checks that are asked."""
    counts = [len(heads) for heads in scan.observed.values() if heads]
    return sum(removals(n, first=i == 0) + critics.steps(n, checks) for i, n in enumerate(counts))


def _positions(batch: Batch, verdict_positions: str | None) -> Tensor | None:
    return None if verdict_positions is None else batch.positions[verdict_positions].reshape(len(batch), -1)
