"""One pass over a batch that feeds every detector of its task; nothing but the statistics leaves a layer.

`scan` gives the raw numbers, for whoever asks about detectors; `scan_task` is the unit of work of mining, with the record that
is kept of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from headatlas import catalogue
from headatlas.detector import Detector, LayerDetector, ModelDetector
from headatlas.edits import OnHeads
from headatlas.edits.collect import means
from headatlas.errors import UnfitTask, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.methods.measured_by.choice import MASKING, REWRITING, measured_on, metric_on, prepared
from headatlas.methods.sweeps.plan import metric_of
from headatlas.methods.sweeps.task_gate import gate_of_values
from headatlas.mining.attention_example import attention_examples
from headatlas.mining.task_scan import AttentionExample, Baseline, DetectorScan, Skipped, TaskScan
from headatlas.model import LayerView, Model
from headatlas.model.runs.shared_pass import SharedPass
from headatlas.ops.memo import asked_together
from headatlas.ops.types import Array, LayerKey
from headatlas.progress import Progress, Silent
from headatlas.scores import HeadScores
from headatlas.task import Batch, Metric, Task
from headatlas.task.encoders import own_output_loss

TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class Scan:
    """What one task's pass gives: scores by detector, the metric per example on task and control, mean z per layer."""

    scores: dict[str, HeadScores]
    metric: Array | None  # [example]
    floor: Array | None  # [example], on the control batch
    mean_z: dict[LayerKey, Tensor]  # [head, d_value]
    seconds: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # detectors that this model cannot be asked, and why
    told: dict[str, tuple[str, ...]] = field(default_factory=dict)  # what some detectors say of each head in words
    # Of detectors that settle on a choice, by stack [example, head, choice]: one that reads both ways may have more of them.
    choices: dict[str, dict[str, Array]] = field(default_factory=dict)


def suits(detector: Detector, layer: LayerView) -> bool:
    """Whether a detector makes sense for this layer."""
    if layer.stack == "cross":
        return detector.cross
    return detector.causal if layer.causal else detector.encoder


def as_asked(model: Model, detectors: Sequence[Detector], metric: Metric | None, batch: Batch) -> Batch:
    """The batch as detectors read it: texts as they are, but what a translator writes by itself where its cross-attention is asked.

    A decoder that never learned to repeat its source attends from a repeated one as it never does.
    """
    by_itself = metric is own_output_loss and any(one.cross for one in detectors)
    return prepared(model, metric, batch) if by_itself else batch


@asked_together()
def scan(
    model: Model,
    detectors: Sequence[Detector],
    batch: Batch,
    *,
    metric: Metric | None = None,
    size: int = 8,
    progress: Progress | None = None,
    step: str = "scan",
    mean_z: bool = True,
) -> Scan:
    """Score every head with every detector of one task on `batch`, `size` examples at a time.

    Those that look at layers share one pass; those that need the whole model follow, one by one, on the whole batch.
    Batch size and padding do not change the result (to float tolerance). `step` of `progress` moves on by the examples of each piece.
    Detectors read texts as they are (`as_asked`): where the metric wants tokens masked, these are read in a pass of their own.
    mean_z: whether the mean z of each head is wanted: over what detectors read, and where the decoder reads other
    texts for the metric, over these.
    """
    progress = progress or Silent()
    batch = as_asked(model, detectors, metric, batch)
    apart, metrics = metric in MASKING, dict[str, list[Array]](task=[], control=[])
    elsewhere: dict[LayerKey, Tensor] = {}
    if apart:
        assert metric is not None
        texts, read, metric = prepared(model, metric, batch), metric, None
        if mean_z and read in REWRITING:
            elsewhere = {key: x[0].cpu() for key, x in means(model, texts, OnHeads(model.heads))[1].items()}
        metrics["task"] = [metric_of(model, texts, read)]
        metrics["control"] = [metric_of(model, texts.control, read)] if texts.control is not None else []
    else:
        batch = prepared(model, metric, batch)
    n, heads = len(batch), model.heads
    layered = [d for d in detectors if isinstance(d, LayerDetector)]
    wholly = [d for d in detectors if isinstance(d, ModelDetector)]
    refused: dict[str, str] = {}
    if model.kind == "encoder-decoder":
        refused = {d.name: "is measured on the whole model, and made for models of one stack" for d in wholly}
        wholly = []
    start_of: dict[LayerKey, int] = {}
    members: dict[str, list[int]] = {}
    for i, head in enumerate(heads):
        start_of.setdefault((head.stack, head.layer), i)
        members.setdefault(head.stack, []).append(i)
    values, control = ({d.name: np.full((n, len(heads)), np.nan) for d in layered} for _ in range(2))
    choices: dict[str, dict[str, Array]] = {}
    sums: dict[LayerKey, Tensor] = {}
    counts: dict[LayerKey, int] = {}
    clock = {"forward": 0.0, "detect": 0.0}

    def fill(
        target: dict[str, Array],
        rows: slice,
        layer: LayerView,
        detector: LayerDetector,
        part: Batch,
        score: Callable[[LayerView, Batch], Tensor],
    ) -> None:
        found = score(layer, part).detach().float().cpu().numpy()
        first = start_of[layer.stack, layer.index]
        if found.ndim == 3:  # a number per choice, to be settled when all examples are in
            own = members[layer.stack]
            empty = np.full((n, len(own), found.shape[-1]), np.nan)
            table, first = choices.setdefault(detector.name, {}).setdefault(layer.stack, empty), own.index(first)
        else:
            table = target[detector.name]
        table[rows, first : first + layer.n_heads] = found

    def run(part: Batch, rows: slice, *, main: bool) -> None:
        began, spent = time.perf_counter(), 0.0

        def watch(layer: LayerView) -> None:
            nonlocal spent
            entered = time.perf_counter()
            for detector in layered:
                if not suits(detector, layer):
                    continue
                read = part.side(layer.stack)
                if main:
                    fill(values, rows, layer, detector, read, detector.score)
                    if detector.control is not None:
                        fill(control, rows, layer, detector, read, detector.control)
                elif detector.needs_control_batch:
                    fill(control, rows, layer, detector, read, detector.score)
            if main and mean_z:
                real = layer.valid_queries[:, :, None, None]
                total, key = (layer.z.float() * real).sum((0, 1)), (layer.stack, layer.index)
                sums[key] = sums.get(key, 0.0) + total.double()
                counts[key] = counts.get(key, 0) + int(layer.valid_queries.sum())
            spent += time.perf_counter() - entered

        score = (shared if main else SharedPass(model, {}, metric)).run(part, watch)
        if score is not None and metric is not None:
            metrics["task" if main else "control"].append(score.double().numpy())
        clock["detect"] += spent
        clock["forward"] += time.perf_counter() - began - spent

    riding = {d.name: partial(d.alongside, model, batch) for d in wholly if d.alongside is not None}
    # Where the scan itself reads nothing of the logits, it reads what the first of these wants.
    shared = SharedPass(model, riding, metric)
    needs_control = batch.control is not None and (metric is not None or any(d.needs_control_batch for d in layered))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        part = batch.rows(rows)
        if layered or shared.along or mean_z or metric is not None:
            run(part, rows, main=True)
        if needs_control and part.control is not None:
            run(part.control, rows, main=False)
        progress.advance(step, rows.stop - rows.start, of=n)
    joined = {name: np.concatenate(parts) if parts else None for name, parts in metrics.items()}
    scores: dict[str, HeadScores] = {}
    told: dict[str, tuple[str, ...]] = {}
    for one in layered:
        scores[one.name], words = _scores(one, heads, values[one.name], control[one.name], choices.get(one.name, {}))
        told |= {one.name: words} if words else {}
    found = shared.measured()
    for whole in wholly:
        began = time.perf_counter()
        try:
            measured = found[whole.name] if whole.name in found else whole.measure(model, batch)
        except (UnsupportedModel, UnfitTask) as error:
            refused[whole.name] = str(error)
            continue
        scored, chance = (part.double().cpu().numpy() for part in measured)
        scores[whole.name] = HeadScores(heads, scored, chance, whole.minimum_effect)
        clock["detect"] += time.perf_counter() - began
    averages = {key: (total / max(counts[key], 1)).float() for key, total in sums.items()} | elsewhere
    return Scan(scores, joined["task"], joined["control"], averages, clock, refused, told, choices)


def _scores(
    detector: LayerDetector, heads: tuple[HeadId, ...], values: Array, control: Array, choices: Mapping[str, Array]
) -> tuple[HeadScores, tuple[str, ...]]:
    """A detector's scores, and what it says of each head in words; it settles on one of its choices first, where it has some.

    choices: by stack [example, head, choice]; values, control [example, head] of detectors without.
    """
    told: dict[int, str] = {}
    for stack, found in choices.items():
        assert detector.settle is not None
        place, every = [i for i, head in enumerate(heads) if head.stack == stack], torch.from_numpy(found)
        if detector.told is not None:
            told |= dict(zip(place, detector.told(every), strict=True))
        settled = detector.settle(every)
        values[:, place], control[:, place] = settled.values.numpy(), settled.control.numpy()
    words = tuple(told.get(i, "") for i in range(len(heads))) if told else ()
    return HeadScores(heads, values, control, detector.minimum_effect), words


def _on_both(first: Scan, second: Scan, detectors: Sequence[Detector]) -> Scan:
    """The scan of these detectors over the examples of both; of the others, and of the model, what the first one has."""
    scores, told = dict(first.scores), dict(first.told)
    for one in (detector for detector in detectors if detector.name in second.scores):
        parts = (first.scores[one.name], second.scores[one.name])
        values, control = (np.concatenate([getattr(part, kind) for part in parts]) for kind in ("values", "control"))
        chosen = {
            stack: np.concatenate([found, second.choices[one.name][stack]])
            for stack, found in first.choices.get(one.name, {}).items()
        }
        if isinstance(one, LayerDetector):
            scores[one.name], words = _scores(one, parts[0].heads, values, control, chosen)
            told |= {one.name: words} if words else {}
        else:
            scores[one.name] = HeadScores(parts[0].heads, values, control, one.minimum_effect)
    seconds = {name: spent + second.seconds[name] for name, spent in first.seconds.items()}
    return replace(first, scores=scores, told=told, seconds=seconds)


def scan_task(
    model: Model,
    task: Task,
    detectors: Sequence[Detector],
    batch: Batch,
    *,
    further: Callable[[], Batch | None] = lambda: None,
    progress: Progress | None = None,
) -> TaskScan:
    """Score every head with the task's detectors on `batch`, a batch of the task, and tell whether the model does the task.

    further: other examples of the task, at most as many, on which those detectors are asked too by which some head is close to
    being observed (`HeadScores.unclear`); None where there are none. The step of `progress` that bears the task's name moves on by the examples of each piece of the batch.
    """
    size, metric = max(1, TOKENS_AT_ONCE // batch.tokens.shape[1]), metric_on(model, task)
    task, own = measured_on(model, task), task.metric
    batch = as_asked(model, detectors, metric, batch)
    found = scan(model, detectors, batch, metric=metric, size=size, progress=progress, step=task.name)
    asked = [detector for detector in detectors if detector.name not in found.refused]
    unclear = [detector for detector in asked if found.scores[detector.name].unclear]
    more = further() if unclear else None
    if more is not None:
        if progress is not None:
            progress.say(f"{task.name}: {', '.join(one.name for one in unclear)} on {len(more)} more examples.")
        more = as_asked(model, unclear, metric, more)
        found = _on_both(found, scan(model, unclear, more, size=size, mean_z=False), unclear)
    if progress is not None:
        progress.plan(())  # what was measured on the whole model is no part of the next step's time
    gate = None
    # A task may take its floor from something that only its own metric has; an encoder's needs the control batch.
    if found.metric is not None and (metric is own or found.floor is not None):
        gate = gate_of_values(task, found.metric, found.floor, model.vocabulary_size)
    observed = {
        detector.name: tuple(line.head for line in found.scores[detector.name].observed(detector.minimum_effect))
        for detector in asked
    }
    examples = attention_examples(model, observed, batch)
    return TaskScan(
        task=task.name,
        detectors=tuple(
            _detector_scan(
                one, found.scores[one.name], observed[one.name], examples.get(one.name), found.told.get(one.name, ())
            )
            for one in asked
        ),
        baseline=Baseline(**gate.baseline) if gate is not None else None,
        smallest=gate.smallest if gate is not None and gate.able else None,
        mean_z={layer: z.cpu() for layer, z in found.mean_z.items()},
        skipped=tuple(Skipped(name, reason) for name, reason in found.refused.items()),
        forward_seconds=found.seconds["forward"],
        detect_seconds=found.seconds["detect"],
    )


def _detector_scan(
    detector: Detector,
    scores: HeadScores,
    observed: tuple[HeadId, ...],
    attention: AttentionExample | None,
    told: tuple[str, ...],
) -> DetectorScan:
    return DetectorScan(
        name=detector.name,
        head_type=detector.head_type,
        stage=catalogue.head_type(detector.head_type).stage,
        version=detector.version,
        minimum_effect=detector.minimum_effect,
        lines=tuple(scores.summary()),
        observed=observed,
        values=scores.values,
        control=scores.control,
        attention=attention,
        about=detector.about,
        told={line.head: words for line, words in zip(scores.summary(), told, strict=True) if words} if told else {},
    )
