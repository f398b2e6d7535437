"""Is the role one of the head, or a habit of one kind of prompt? It is tried on the task's second family of prompts.

Attention and effects that hold for one template need not hold for another wording or format (2602.11162, 2602.22424): the
detector's score is taken again there, and a head that is causal alone is removed there as the verdict removed it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from headatlas.detector import Detector, LayerDetector
from headatlas.errors import UnfitTask, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import measured_on
from headatlas.methods.sweeps.matched_controls import Removal
from headatlas.methods.sweeps.task_gate import gate_of_values
from headatlas.mining.checks.false_discoveries import LEVEL
from headatlas.mining.checks.fresh import fresh, thinned
from headatlas.mining.checks.own_effect import effect_of
from headatlas.mining.checks.random_heads import prepare, scale_of
from headatlas.mining.checks.records import Check, DetectorVerdict, Outcome, exceeds
from headatlas.mining.scan import Scan, scan
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.progress import Progress
from headatlas.task import Batch, Metric, Task

NAME = "transfer"
EXAMPLES = 16
WORDS = {"passed": "transfers", "weakened": "transfers in part", "failed": "does not transfer"}
Found = tuple[Outcome, tuple[float, float, float]]


class Transfer:
    """The second family of a task, run once for all of its detectors."""

    def __init__(
        self, model: Model, task: Task, metric: Metric, detectors: Sequence[Detector], *, smallest: float, seed: int
    ) -> None:
        self.model, self.task, self.metric, self.smallest, self.seed = model, task, metric, smallest, seed
        self._progress: Progress | None = None
        self._detectors = [one for one in detectors if isinstance(one, LayerDetector)]

    @cached_property
    def reason(self) -> str:
        """Why there is nothing to try; "" where there is."""
        if self.task.second is None:
            return "the task has one family of prompts"
        try:
            found = self._scan
        except UnfitTask as error:
            return str(error)
        assert found.metric is not None
        gate = gate_of_values(
            measured_on(self.model, self.task.second), found.metric, found.floor, self.model.vocabulary_size
        )
        return "" if gate.low > 0 else "the model does not do the task in its second family of prompts"

    @cached_property
    def _batch(self) -> Batch:
        assert self.task.second is not None
        return fresh(self.model, self.task.second, EXAMPLES, self.seed, EXAMPLES, whole=True)

    @cached_property
    def _scan(self) -> Scan:
        return scan(self.model, self._detectors, self._batch, metric=self.metric, progress=self._progress)

    def check(
        self,
        detector: Detector,
        judged: DetectorVerdict,
        removing: Callable[[Batch], Removal],
        progress: Progress | None = None,
    ) -> dict[HeadId, Check]:
        """By head whether score and effect hold on the other family: both, one, or neither for certain."""
        self._progress = progress
        heads = list(judged.heads)
        if self.reason:
            return dict.fromkeys(heads, Check(NAME, "does not apply", note=self.reason))
        # An effect can only be lost where there was one.
        causal = {
            head: one.alone.sign
            for head, one in judged.heads.items()
            if exceeds(one.alone, self.smallest) and one.alone.p <= LEVEL
        }
        try:
            removal = removing(thinned(self._batch)) if causal else None
        except (UnsupportedModel, UnfitTask) as error:
            return dict.fromkeys(heads, Check(NAME, "does not apply", note=str(error)))
        if removal is not None:
            prepare(removal, [[head] for head in causal], progress)
        found: dict[HeadId, Check] = {}
        for head in heads:
            parts: dict[str, Found] = {}
            if detector.name in self._scan.scores:
                scores, i = self._scan.scores[detector.name], self.model.heads.index(head)
                parts["score above chance"] = held(scores.values[:, i] - scores.control[:, i], detector.minimum_effect)
            if removal is not None and head in causal:
                drop = removal.metric_drop([head])
                parts["effect"] = kept(drop, causal[head], self.smallest, scale_of(removal), self.seed)
            found[head] = together(parts)
        return found


def held(excess: Array, least: float) -> Found:
    """Whether scores above chance, [example], are on average more than a detector's minimum effect."""
    low, high = (float(end[0]) for end in stats.interval(excess[:, None]))
    outcome: Outcome = "passed" if low >= least else "failed" if high < least else "weakened"
    return outcome, (float(stats.mean(excess[:, None])[0]), low, high)


def kept(drop: Array, sign: int, least: float, scale: float, seed: int = 0) -> Found:
    """Whether removing a head, [example], does again what it did: `sign` says which way."""
    effect = effect_of(drop, scale, None, seed)
    found = (effect.effect, effect.low, effect.high)
    if effect.few or np.isnan(effect.low):
        return "weakened", found
    low, high = sorted((sign * effect.low, sign * effect.high))
    outcome: Outcome = (
        "passed" if low > 0 and sign * effect.effect >= least else "failed" if high < least else "weakened"
    )
    return outcome, found


def together(parts: dict[str, Found]) -> Check:
    """One outcome of both: failed where the score is lost (the effect, where no score could be taken), passed where all holds."""
    if not parts:
        return Check(
            NAME, "does not apply", note="its score is not taken from prompts, and it has no effect to try again"
        )
    first, *others = parts.values()
    outcome = first[0]
    if outcome == "passed" and any(one[0] != "passed" for one in others):
        outcome = "weakened"
    _, numbers = list(parts.values())[-1]
    lost = [name for name, one in parts.items() if one[0] == "failed"]
    note = WORDS[outcome] + (f": {' and '.join(lost)} lost" if lost else "")
    return Check(NAME, outcome, *numbers, note, {name: one[1] for name, one in parts.items()})
