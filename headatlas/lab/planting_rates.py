"""How often a detector and its verdicts are right on the models of its planting, and on the same models without structure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.detector import Detector, detectors, find_detector
from headatlas.heads import HeadId
from headatlas.lab.controls import untrained_twin, weight_shuffled
from headatlas.lab.measure import without
from headatlas.lab.planting import Planting, Sown
from headatlas.methods.measured_by.choice import metric_on, prepared
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.mining.checks.fresh import fresh
from headatlas.mining.checks.records import DetectorVerdict
from headatlas.mining.planning import misfit
from headatlas.mining.scan import scan_task
from headatlas.mining.task_scan import TaskScan
from headatlas.mining.verdicts import judge_task
from headatlas.model import Model, attach
from headatlas.ops.types import Array
from headatlas.progress import Silent
from headatlas.task import Batch

# Shares of what the model's ability is worth: a head that is worth less does nothing, one that is worth more matters.
# Between them a head decides about no verdict.
NOTHING, MATTERS = 0.01, 0.05
OTHERS = 2000  # added to a seed: truth is measured on examples that neither scores nor verdicts saw


@dataclass
class PlantingTally:
    """What a detector and its verdicts did on some models of its planting."""

    scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    observed: list[bool] = field(default_factory=list)
    look_alikes: list[bool] = field(default_factory=list)  # observed, over the look-alikes
    verdicts: list[tuple[str, bool]] = field(default_factory=list)  # (verdict, really matters)
    controls: list[bool] = field(default_factory=list)  # observed, over all heads without structure
    able: list[bool] = field(default_factory=list)  # whether each model does the task

    def rates(self) -> dict[str, float | int | None]:
        """The numbers that are reported; None where nothing was counted."""
        from sklearn.metrics import roc_auc_score  # here, since it takes a second to import

        labels, observed = np.array(self.labels, bool), np.array(self.observed, bool)

        def share(values: Iterable[bool]) -> float | None:
            known = list(values)
            return float(np.mean(known)) if known else None

        def right(word: str) -> float | None:
            return share(matters != (word == "refuted") for found, matters in self.verdicts if found == word)

        return {
            "auc": float(roc_auc_score(labels, self.scores)) if 0 < labels.sum() < len(labels) else None,
            "precision": share(labels[observed]),
            "recall": share(observed[labels]),
            "look_alikes_observed": share(self.look_alikes),
            **{f"{word}_precision": right(word) for word in ("causal", "group", "refuted")},
            "verdict_recall": share(word != "refuted" for word, matters in self.verdicts if matters),
            "false_discovery": share(self.controls),
            "positives": int(labels.sum()),
            "negatives": int((~labels).sum()),
            "verdicts": len(self.verdicts),
            "able": share(self.able),
        }


def measure_planting(one: Planting, seeds: Sequence[int]) -> PlantingTally:
    """Make the planting's model for each seed, scan it as `headatlas.mine` does, judge it, and compare with the truth."""
    detector, tally = find_detector(one.detector), PlantingTally()
    for seed in seeds:
        made = one.make(seed)
        scan = _scanned(made.model, one, seed)
        found = set(scan.observed.get(detector.name, ()))
        for line in next(part.lines for part in scan.detectors if part.name == detector.name):
            label = made.label(line.head)
            if label is not None:
                tally.scores.append(float(np.nan_to_num(line.excess)))
                tally.labels.append(label)
                tally.observed.append(line.head in found)
        tally.look_alikes += [head in found for head in sorted(made.look_alikes)]
        tally.able.append(scan.smallest is not None)
        if scan.smallest is not None and found:
            judged = judge_task(
                made.model, detector.task, [detector], scan, n=one.examples, seed=seed,
                progress=Silent(),
            )  # fmt: skip
            if detector.name in judged.detectors:
                tally.verdicts += _compared(made, detector, judged.detectors[detector.name], scan.smallest, seed)
        for control in _without_structure(made.model, seed):
            heads = set(_scanned(control, one, seed, alone=True).observed.get(detector.name, ()))
            tally.controls += [head in heads for head in control.heads]
    return tally


def _scanned(model: Model, one: Planting, seed: int, *, alone: bool = False) -> TaskScan:
    """The scan of the detector's task by all of its detectors: heads that one of them observes are not compared with."""
    detector = find_detector(one.detector)
    batch = detector.task(model.tokenizer, one.examples, seed)
    return scan_task(model, detector.task, [detector] if alone else beside(detector, model), batch)


def beside(detector: Detector, model: Model) -> list[Detector]:
    """All detectors of its task that can be asked of the model, itself included."""
    return [other for other in detectors().values() if other.task == detector.task and not misfit(other, model)]


def _logits(hf: Any, batch: Batch) -> Tensor:
    """[example, pos, vocab] by the model itself."""
    read = batch.encoder
    if read is None:
        found: Tensor = hf(batch.tokens).logits
    else:
        found = hf(read.tokens, attention_mask=read.mask.long(), decoder_input_ids=batch.tokens).logits
    return found


def _without_structure(model: Model, seed: int) -> Iterator[Model]:
    """The model's shape with random weights, and its own weights in random order."""
    hf: Any = model.hf
    for bare in (untrained_twin(hf, seed=seed), weight_shuffled(hf, seed=seed)):
        yield attach(bare, tokenizer=model.tokenizer)


def _compared(
    made: Sown, detector: Detector, verdict: DetectorVerdict, smallest: float, seed: int
) -> Iterator[tuple[str, bool]]:
    """(verdict, whether the head really matters), measured with plain hooks on the untouched model.

    A head of a group is asked what it is worth once the group's other heads are off. Heads that matter a little are left out.
    Where each head is judged by something of its own (a removal that can `read` it in logits), that is measured.
    """
    metric = metric_on(made.model, detector.task)
    batch = prepared(made.model, metric, fresh(made.model, detector.task, 16, seed + OTHERS))
    assert metric is not None
    own = detector.removal(made.model, batch, metric) if detector.removal is not None else None
    if isinstance(own, SetAblation):  # heads that are judged by something else than the task's metric do that something
        metric, batch = own.metric, own.batch
    read: Callable[[list[HeadId], Tensor], Array] | None = getattr(own, "read", None)
    hf: Any = made.model.hf
    ability = smallest / NOTHING
    group = frozenset(head for head, word in verdict.verdicts.items() if word == "group")

    def measured(heads: Iterable[HeadId], what: HeadId) -> float:
        with torch.no_grad(), without(hf, *heads):
            logits = _logits(hf, batch)
        places = metric.positions(batch).clamp(min=0)
        places = places.reshape(len(batch), -1)
        at = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))
        return float(metric.score(at, batch).mean()) if read is None else float(read([what], at).mean())

    for head, word in verdict.verdicts.items():
        off = made.gone | (group - {head} if word == "group" else frozenset())
        worth = abs(measured(off, head) - measured(off | {head}, head)) / ability
        if worth <= NOTHING or worth >= MATTERS:
            yield word, worth >= MATTERS
