"""Steering in one call: directions from labelled prompts, what they do, what they cost, and the text that comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headatlas.apply.steering.direction import Steering, best_heads, find, name_of, one_in_twenty, position_of, toward
from headatlas.apply.steering.dose import Doses, data_of, measure, parse_alphas, toward_metric
from headatlas.apply.steering.generation import generate
from headatlas.edits import save as save_edits
from headatlas.edits.base import Heads, Layers
from headatlas.errors import BadInput
from headatlas.heads import parse_heads
from headatlas.methods.labels import LabelledPrompts, Labels, labelled
from headatlas.methods.prompts import MeasuredPrompts, Prompts, measured_by, prompts_for
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.given import demand_numbers
from headatlas.model.text.start_end import said_of
from headatlas.progress import Progress, Silent
from headatlas.task import Batch, Metric, Task, find_task
from headatlas.task.answers import find_metric

NEUTRAL = 16  # prompts of prose on which the cost elsewhere is measured


@dataclass(frozen=True)
class SteerOptions:
    """What is pushed, along what, how far, and what is asked of it.

    toward: the class to steer to; default the last one. position: whose outputs are compared, "end" or another of the task.
    heads: which to push; default those with the best probes, `pick` of them (1 in 20). layers: push the residual stream of
    these instead. direction: mean (difference of means), probe, pca or random. alpha: how far, in standard deviations;
    several to compare. remove: take the direction away as well. measure, measure_task: a JSONL file with clean, answer,
    wrong, or a batch; or a built-in task, to measure on. metric: what of them is measured, as in `ablate`; default the task's
    own, else by the answers there are. everywhere: push at every token, not only where the answer is
    given. draws: random directions to compare with. generate: a prompt to continue by `tokens` with and without the largest
    push. save: folder to keep the edit of the largest push in. n, seed: prompts of `measure_task`, and the seed of
    splits and random directions. Raises BadInput where nothing is asked for, or heads and layers are both given.
    """

    toward: str | None = None
    position: str = "end"
    heads: Heads | None = None
    layers: Layers | None = None
    pick: int | None = None
    direction: str = "mean"
    alpha: str | float | Sequence[float] = (5.0, 10.0, 15.0)
    remove: bool = False
    measure: str | Path | Batch | None = None
    measure_task: str | None = None
    metric: Metric | str | None = None
    everywhere: bool = False
    draws: int = 5
    generate: str | None = None
    tokens: int = 40
    save: str | Path | None = None
    n: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        demand_numbers(self)
        if self.measure is None and self.measure_task is None and self.generate is None and self.save is None:
            raise BadInput(
                "Steering has nothing to do: there is nothing to measure, to generate or to save.",
                "Add --measure FILE, --measure-task NAME, --generate TEXT or --save DIR.",
            )
        if self.heads is not None and self.layers is not None:
            raise BadInput("Both --heads and --layers are given.", "Choose one.")
        if self.metric is not None and self.measure is None and self.measure_task is None:
            raise BadInput(
                "--metric says what is measured, and nothing is.", "Add --measure FILE or --measure-task NAME."
            )
        if isinstance(self.metric, str):  # a name that there is not is told at once
            find_metric(self.metric)
        _ = self.alphas

    @property
    def alphas(self) -> list[float]:
        """How far, as numbers. Raises BadInput."""
        given = self.alpha if isinstance(self.alpha, (str, Sequence)) else [self.alpha]
        return parse_alphas(given if isinstance(given, str) else " ".join(map(str, given)))

    @property
    def largest(self) -> float:
        """The push of the largest size, whose text is generated and whose edit is saved."""
        return max(self.alphas, key=abs)


@dataclass(frozen=True)
class Steered:
    """What steering did.

    steering: the directions. measured: doses, None where nothing was measured. generated: prompt, alpha, and the text
    without and with. saved: the folder of the edit. facts: model, direction, what was pushed; `on`: what was measured on.
    """

    steering: Steering
    facts: Mapping[str, Any]
    measured: Doses | None = None
    on: Mapping[str, Any] = field(default_factory=dict)
    generated: Mapping[str, Any] | None = None
    saved: str | None = None

    def data(self) -> dict[str, Any]:
        """As plain values."""
        found: dict[str, Any] = dict(self.facts)
        if self.measured is not None:
            found["measured"] = {**self.on, **data_of(self.measured)}
        if self.generated is not None:
            found["generated"] = dict(self.generated)
        if self.saved is not None:
            found["saved"] = self.saved
        return found


def steer(
    model: Model,
    batch: Inputs | LabelledPrompts,
    labels: Labels | Sequence[str | int] | None = None,
    *,
    options: SteerOptions,
    progress: Progress | None = None,
) -> Steered:
    """Push heads along the direction that tells two kinds of text apart, and see what it does and what it costs.

    batch, labels: the prompts whose classes give the direction; labels default to those the prompts have. Where the prompts
    measured on have the same label, their logit difference is counted for the class that is steered to (`toward_metric`).
    Raises BadInput, StoreError, UnknownName, UnsupportedModel.
    """
    progress = progress or Silent()
    label = batch.label if isinstance(batch, LabelledPrompts) else None
    read, known = labelled(model, batch, labels)
    steering = _directions(model, read, known, options, progress)
    target = options.toward or known.classes[-1]
    pushed = [name_of(key) for key in steering.directions]
    facts = {
        "model": model.name, "direction": options.direction, "toward": target, "pushed": pushed,
        "site": steering.component, "seed": options.seed, "start_end": said_of(read.facts),
    }  # fmt: skip
    progress.say(f"pushing {', '.join(pushed)} towards {target}")
    measured, on = None, dict[str, Any]()
    if options.measure is not None or options.measure_task is not None:
        given = _measured_on(model, options)
        on, measured = dict(given.facts), _doses(model, steering, given, label, target, options, progress)
    generated = None
    if options.generate is not None:
        generated = _generated(model, steering, options.generate, options)
    saved = None
    if options.save is not None:
        save_edits([steering.add(options.largest)], options.save)
        saved = str(options.save)
    return Steered(steering, facts, measured, on, generated, saved)


def _directions(model: Model, batch: Batch, labels: Labels, options: SteerOptions, progress: Progress) -> Steering:
    """The directions, in the heads or layers named, else in the heads with the best probes."""
    where: Heads | Layers | None = options.layers
    if where is None and options.heads is not None:
        where = parse_heads(options.heads, model.heads)
    if where is None:
        k = one_in_twenty(model) if options.pick is None else options.pick
        where = best_heads(model, batch, labels, k, position=options.position, seed=options.seed, progress=progress)
    aim = toward(labels, options.toward)
    component = "residual" if options.layers is not None else "z"
    positions = position_of(batch, options.position)
    return find(
        model, where, batch, aim, options.direction, component=component, positions=positions, seed=options.seed
    )


def _measured_on(model: Model, options: SteerOptions) -> MeasuredPrompts:
    """The prompts that doses are measured on, drawn with another seed than those of the directions."""
    if isinstance(options.measure, Batch):
        return prompts_for(model, measured_by(options.measure, options.metric))
    given = Prompts(options.measure_task, options.measure, options.n, options.seed + 1, metric=options.metric)
    return prompts_for(model, given, demand=False)


def _doses(
    model: Model,
    steering: Steering,
    given: MeasuredPrompts,
    label: str | None,
    target: str,
    options: SteerOptions,
    progress: Progress,
) -> Doses:
    """Every dose on the prompts, and the loss on prose beside it."""
    neutral: Task = find_task("prose")
    assert neutral.metric is not None
    unrelated = (neutral(model.tokenizer, NEUTRAL, options.seed), neutral.metric)
    metric = toward_metric(given.metric, given.batch, label, target)
    alphas: list[float | None] = [*options.alphas, *([None] if options.remove else [])]
    return measure(
        model, steering, given.batch, metric, alphas, draws=options.draws, everywhere=options.everywhere,
        unrelated=unrelated, seed=options.seed, progress=progress,
    )  # fmt: skip


def _generated(model: Model, steering: Steering, prompt: str, options: SteerOptions) -> dict[str, Any]:
    """The text that follows a prompt without and with the largest push."""
    most = options.largest
    return {
        "prompt": prompt,
        "alpha": most,
        "without": generate(model, prompt, None, options.tokens),
        "with": generate(model, prompt, lambda positions: [steering.add(most, positions)], options.tokens),
    }
