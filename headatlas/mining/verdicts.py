"""The verdicts of a run: on which examples heads are removed, by which removal, against which other heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from headatlas.detector import Detector
from headatlas.errors import UnfitTask, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import Removal, Verdict, judge
from headatlas.methods.sweeps.set_ablation import ablated
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch, Metric, Task, fitting, held_out

EXAMPLES = 8  # held-out examples on which heads are ablated, more where they are shorter than
CONTEXT = 48  # tokens, their longest length where the task allows it: a verdict costs hundreds of runs
LOSSES = 16  # places per example at which a loss is read
TOKENS = 32_768  # of all examples together, at least four: their keys and values are kept in memory
SEED = 1_000_003


@dataclass(frozen=True)
class Case:
    """What verdicts on the heads of one task rest on.

    observed: by detector. mean_z: (stack, layer) -> [head, d_value]. smallest: the least effect that counts, in units of the metric.
    n: examples that the scan had. assigned: heads in which any detector of any task observed something.
    """

    task: Task
    metric: Metric
    observed: Mapping[Detector, Sequence[HeadId]]
    mean_z: Mapping[tuple[str, int], Tensor]
    smallest: float
    n: int
    assigned: Iterable[HeadId]


def verdicts(model: Model, case: Case, seed: int, progress: Progress) -> dict[str, Verdict]:
    """A verdict for each detector that observed heads, on examples that were not used to find them."""
    batch = fresh(model, case.task, case.n, seed)
    half = batch.rows(slice(0, max(1, len(batch) // 2)))
    removals: dict[str | None, tuple[Removal, Removal]] = {}
    taken = {head for heads in case.observed.values() for head in heads}
    step = f"{case.task.name}: verdict"
    found = {}
    for detector, heads in case.observed.items():
        if not heads:
            continue
        progress.say(f"{case.task.name}: verdict on {len(heads)} heads observed by {detector.name}.")
        try:
            own, verdict_positions = detector.removal, detector.verdict_positions
            if own is not None:
                pair = own(model, batch, case.metric), own(model, half, case.metric)
            else:
                if verdict_positions not in removals:
                    whole, part = (
                        ablated(model, one, case.metric, case.mean_z, _positions(one, verdict_positions))
                        for one in (batch, half)
                    )
                    removals[verdict_positions] = whole, part
                pair = removals[verdict_positions]
            found[detector.name] = judge(
                *pair, heads, taken, assigned=case.assigned, smallest=case.smallest, seed=seed,
                tick=lambda: progress.advance(step),
            )  # fmt: skip
        except UnsupportedModel as error:
            progress.say(f"{case.task.name}: no verdict on {detector.name}: {error}")
    return found


def steps(observed: Iterable[Sequence[HeadId]]) -> int:
    """How many steps `verdicts` will report for heads observed by each detector."""
    return sum(len(heads) + 1 for heads in observed if heads)


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
    """The batch with the loss asked for at no more than about LOSSES places per example: logits are dear."""
    places = batch.positions.get("predict")
    if places is None or places.shape[1] <= LOSSES:
        return batch
    return replace(batch, positions={**batch.positions, "predict": places[:, :: places.shape[1] // LOSSES]})


def _positions(batch: Batch, verdict_positions: str | None) -> Tensor | None:
    return None if verdict_positions is None else batch.positions[verdict_positions].reshape(len(batch), -1)
