"""How often detectors are right: run them over a grid of models in which the truth is planted, and over controls."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from headatlas.detector import Detector, detectors, find_detector
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.controls import untrained, weight_shuffled
from headatlas.lab.measure import read, without
from headatlas.lab.planted import PlantedModel, plant
from headatlas.lab.spec import Head, PlantSpec
from headatlas.methods.scan import Scan, scan
from headatlas.methods.verdict import Ablation, judge
from headatlas.model import Model, Tokenizer, attach, load
from headatlas.task import Batch, Task

WEAKEST = 0.5  # positives with less of their attention on target are for the curve, not for the counts
MATTERS = 0.05  # nats of loss that switching a head off must cost for it to count as causal in truth
EXAMPLES = 16


@dataclass(frozen=True)
class Cell:
    """One planted model of the grid."""

    architecture: str
    n_kv_heads: int | None
    width: int
    strength: float
    noise: float
    seed: int

    @property
    def name(self) -> str:
        """Such as `llama gqa 128 0.8 noise 0.1 seed 3`."""
        groups = "gqa" if self.n_kv_heads else "mha"
        return f"{self.architecture} {groups} {self.width} {self.strength} noise {self.noise} seed {self.seed}"


def grid(*, quick: bool) -> list[Cell]:
    """The cells: both architectures, MHA and GQA, widths 64 to 512, strengths 0.2 to 1, two noise levels, several seeds."""
    shapes = [("gpt2", None, 128), ("llama", None, 128), ("llama", 2, 256)]
    strengths: tuple[float, ...] = (0.4, 0.8)
    noises: tuple[float, ...] = (0.03,)
    seeds = range(2)
    if not quick:
        shapes += [("gpt2", None, 64), ("gpt2", None, 512)]
        strengths, noises, seeds = (0.2, 0.6, 1.0), (0.0, 0.03), range(4)
    return [
        Cell(*shape, strength, noise, seed)
        for shape in shapes
        for strength in strengths
        for noise in noises
        for seed in seeds
    ]


def planted(cell: Cell) -> PlantedModel:
    """The model of a cell: every kind that detectors look for, at places drawn by the seed, among noise heads."""
    rng = np.random.default_rng(cell.seed)
    n_layers, n_heads = 4, 4 if cell.width < 256 else 8
    first = ["previous", "duplicate", "current"]
    later = ["induction", "fake-induction", "positional", "window", "sink", "delimiter", "dormant", "copy-suppression"]
    # Heads that others build on stand in layer 0 at full strength; the rest anywhere above it.
    low = [(0, int(head)) for head in rng.permutation(n_heads)]
    high = [(layer, head) for layer in range(1, n_layers) for head in range(n_heads)]
    order = [high[i] for i in rng.permutation(len(high))][: len(later)]
    # A head that suppresses what others predict stands above a head that predicts.
    lowest, highest = min(order), max(order)
    order = [lowest, *(place for place in order if place not in (lowest, highest)), highest]
    heads = [Head(*low[i], kind) for i, kind in enumerate(first)]
    offset = int(rng.integers(2, 8))
    for place, kind in zip(order, later, strict=False):
        options: dict[str, Any] = {"offset": offset} if kind == "positional" else {}
        options["strength"] = cell.strength
        if kind == "copy-suppression":
            options["write"] = 0.5
        heads.append(Head(place[0], place[1], kind, **options))
    spec = PlantSpec(tuple(_fitting(heads, cell.n_kv_heads, n_heads)), noise=cell.noise)
    return plant(
        spec,
        architecture=cell.architecture,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=cell.n_kv_heads,
        width=cell.width,
        vocab=256,
        context=160,
        seed=cell.seed,
    )


def _fitting(heads: Sequence[Head], n_kv_heads: int | None, n_heads: int) -> list[Head]:
    """With shared keys and values only one head of a group is planted; the others of the group are left out."""
    if n_kv_heads is None:
        return list(heads)
    size, taken, kept = n_heads // n_kv_heads, set(), []
    for head in heads:
        group = (head.layer, head.head // size)
        if group not in taken:
            taken.add(group)
            kept.append(head)
    needed = {head.kind for head in kept}
    return [
        head
        for head in kept
        if "previous" in needed or head.kind not in ("induction", "fake-induction", "copy-suppression")
    ]


def label(detector: Detector, head: Head, share: float, *, weakest: float) -> bool | None:
    """Whether the detector should find this head: True, False, or None where it does not decide.

    share: how much of the head's attention really is on its targets. Positives below `weakest` do not decide: they are
    there for the curve of score against strength.
    """
    if head.kind in detector.finds:
        return True if share >= weakest else None
    return None if head.kind in detector.undecided else False


@dataclass
class Tally:
    """What one detector did on one part of the grid."""

    scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    observed: list[bool] = field(default_factory=list)
    verdicts: list[tuple[bool, bool]] = field(default_factory=list)  # (judged to matter, really matters)
    curve: dict[float, list[float]] = field(default_factory=dict)  # real share on target -> scores
    fake: list[tuple[bool, str]] = field(default_factory=list)  # fake induction heads: observed, verdict
    controls: list[bool] = field(default_factory=list)  # observed, over all heads of the controls

    def rates(self) -> dict[str, float | int | None]:
        """The numbers that are reported; None where nothing was counted."""
        labels, observed = np.array(self.labels, bool), np.array(self.observed, bool)
        both = bool(labels.any()) and not bool(labels.all())
        judged = [matters for said, matters in self.verdicts if said]
        true = [said for said, matters in self.verdicts if matters]
        return {
            "auc": float(roc_auc_score(labels, self.scores)) if both else None,
            "precision": float(labels[observed].mean()) if observed.any() else None,
            "recall": float(observed[labels].mean()) if labels.any() else None,
            "verdict_precision": float(np.mean(judged)) if judged else None,
            "verdict_recall": float(np.mean(true)) if true else None,
            "false_discovery": float(np.mean(self.controls)) if self.controls else None,
            "positives": int(labels.sum()),
            "negatives": int((~labels).sum()),
            "control_heads": len(self.controls),
        }


def model_of(planted_model: PlantedModel) -> Model:
    """The planted model behind the doorway, with its own tokenizer."""
    config: Any = planted_model.model.config
    planted_model.tokenizer.model_max_length = 1 << 30
    words = Tokenizer(
        causal=True,
        context=int(config.max_position_embeddings),
        vocab_size=int(config.vocab_size),
        hf=planted_model.tokenizer,
        bos="auto",
    )
    return attach(planted_model.model, tokenizer=words)


def calibrate(
    names: Sequence[str] | None = None,
    *,
    quick: bool = False,
    tick: Callable[[str, int, int], None] = lambda what, i, n: None,
) -> dict[str, Any]:
    """Run detectors over the grid and the controls. Raises UnknownName, BadInput.

    Odd seeds are reported; even seeds ("tuning") are for choosing thresholds. The shipped thresholds were set while both
    halves of the quick grid were looked at, so that fresh seeds are needed for a held-out figure. The result:
    {"detectors": [{"name", "auc", "precision", "recall", "verdict_precision", "verdict_recall", "false_discovery", ...,
    "tuning": {...}, "curve": [[strength, mean score, lowest, highest]]}], "uncalibrated": [...], "cells": n}.
    """
    wanted = [find_detector(name) for name in names] if names else [d for d in detectors().values() if d.calibrated]
    for detector in wanted:
        if not detector.calibrated:
            raise BadInput(
                f"No planted kind tests {detector.name}: it is uncalibrated.",
                f"Calibrated: {', '.join(d.name for d in detectors().values() if d.calibrated)}.",
            )
    tallies = {(d.name, half): Tally() for d in wanted for half in (0, 1)}
    cells = grid(quick=quick)
    controls = list(_controls(quick))
    for i, cell in enumerate(cells):
        _measure(planted(cell), cell, wanted, tallies)
        tick("planted models", i + 1, len(cells))
    for i, (make, seed, what) in enumerate(controls):
        _measure_control(make(), seed, what, wanted, tallies)
        tick("controls", i + 1, len(controls))
    rows = []
    for detector in wanted:
        reported, tuning = tallies[detector.name, 1], tallies[detector.name, 0]
        curve = [[s, float(np.mean(v)), float(np.min(v)), float(np.max(v))] for s, v in sorted(reported.curve.items())]
        rows.append(
            {"name": detector.name, "minimum_effect": detector.minimum_effect, **reported.rates(), "tuning": tuning.rates(), "curve": curve,
             "fake_observed": _share(reported.fake, 0), "fake_causal": _share([(word == "causal", "") for _, word in reported.fake], 0)}
        )  # fmt: skip
    missing = sorted(name for name, d in detectors().items() if not d.calibrated)
    return {
        "detectors": rows,
        "uncalibrated": missing,
        "cells": len(cells),
        "controls": len(controls),
        "weakest": WEAKEST,
        "examples": EXAMPLES,
    }


def _share(pairs: Sequence[tuple[bool, str]], place: int) -> float | None:
    return float(np.mean([pair[place] for pair in pairs])) if pairs else None


def _scans(
    model: Model, wanted: Sequence[Detector], seed: int, destroyed: bool = False
) -> Iterator[tuple[Task, list[Detector], Scan]]:
    by_task: dict[Task, list[Detector]] = {}
    for detector in wanted:
        by_task.setdefault(detector.task, []).append(detector)
    for task, group in by_task.items():
        batch = task(model.tokenizer, EXAMPLES, seed)
        if destroyed:
            batch = _without_structure(batch, seed)
        yield task, group, scan(model, group, batch, metric=task.metric, size=EXAMPLES)


def _without_structure(batch: Batch, seed: int) -> Batch:
    """The control batch in place of the batch, and another order of its examples as its control: nothing is there to find."""
    assert batch.control is not None
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(batch)))
    return dataclasses.replace(batch.control, control=batch.control.rows(order))


def _measure(
    planted_model: PlantedModel, cell: Cell, wanted: Sequence[Detector], tallies: dict[tuple[str, int], Tally]
) -> None:
    model, half = model_of(planted_model), cell.seed % 2
    # What a planted head really does under noise is measured from the model's own eager attention, without detectors.
    real = {head.id: read(planted_model, head, n=8, seed=cell.seed).attention for head in planted_model.planted}
    for task, group, found in _scans(model, wanted, cell.seed):
        observed = {d.name: [line.head for line in found.scores[d.name].observed(d.minimum_effect)] for d in group}
        taken = {head for heads in observed.values() for head in heads}
        verdicts: dict[HeadId, str] = {}
        for detector in group:
            tally = tallies[detector.name, half]
            for line in found.scores[detector.name].summary():
                head = planted_model.truth[line.head]
                is_observed = line.head in observed[detector.name]
                if head.kind in detector.finds and not np.isnan(line.score):
                    tally.curve.setdefault(round(real.get(line.head, 0.0), 1), []).append(line.score)
                decided = label(detector, head, real.get(line.head, 0.0), weakest=WEAKEST)
                if decided is not None and not np.isnan(line.score):
                    tally.scores.append(line.excess)
                    tally.labels.append(decided)
                    tally.observed.append(is_observed)
            if task.name == "repeated" and observed[detector.name] and task.metric is not None:
                batch = task(model.tokenizer.within(48), 8, cell.seed + 1000)
                judged = judge(
                    Ablation(model, batch, task.metric, found.mean_z),
                    Ablation(model, batch.rows(slice(0, 4)), task.metric, found.mean_z),
                    observed[detector.name],
                    taken,
                    smallest=0.01 * _gap(found),
                    seed=cell.seed,
                )
                verdicts = judged.verdicts
                for head_id, word in verdicts.items():
                    tally.verdicts.append((word == "causal", _matters(planted_model, model, head_id, task, cell.seed)))
            for head_id, head in planted_model.truth.items():
                if head.kind == "fake-induction" and real[head_id] >= WEAKEST:
                    tally.fake.append((head_id in observed[detector.name], verdicts.get(head_id, "not judged")))
            verdicts = {}


def _gap(found: Scan) -> float:
    assert found.metric is not None
    assert found.floor is not None
    return abs(float(found.floor.mean() - found.metric.mean()))


def _matters(planted_model: PlantedModel, model: Model, head: HeadId, task: Task, seed: int) -> bool:
    """Whether switching the head off costs at least MATTERS nats, measured with a plain hook on the untouched model."""
    batch = task(model.tokenizer, 8, seed + 2000)
    metric = task.metric
    assert metric is not None

    def loss() -> float:
        with torch.no_grad():
            logits = planted_model.model(batch.tokens).logits
        places = batch.at["predict"].clamp(min=0)
        at = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))
        return float(metric.score(at, batch).mean())

    clean = loss()
    with without(planted_model.model, head):
        return abs(loss() - clean) >= MATTERS


def _controls(quick: bool) -> Iterator[tuple[Callable[[], Model], int, str]]:
    """Models in which nothing is to be found, and planted ones on texts without structure: (make, seed, what)."""
    shapes = [("gpt2", None, 128), ("llama", 2, 256)]
    if not quick:
        shapes += [("llama", None, 128), ("gpt2", None, 512)]
    for shape in shapes:
        for seed in range(2 if quick else 4):
            cell = Cell(*shape, 1.0, 0.03, seed)
            yield functools.partial(_untrained, cell), seed, "untrained"
            yield functools.partial(_noise, cell), seed, "noise heads only"
            yield functools.partial(lambda cell: model_of(planted(cell)), cell), seed, "no structure"
    if not quick:
        yield functools.partial(_shuffled, "smollm2-135m", 0), 0, "weight-shuffled"
        yield functools.partial(_shuffled, "smollm2-135m", 1), 1, "weight-shuffled"


def _untrained(cell: Cell) -> Model:
    source = planted(cell)
    return model_of(dataclasses.replace(source, model=untrained(source.model.config, seed=cell.seed)))


def _noise(cell: Cell) -> Model:
    heads = 8 if cell.width >= 256 else 4
    spec = PlantSpec((), noise=cell.noise)
    made = plant(spec, architecture=cell.architecture, n_layers=4, n_heads=heads, n_kv_heads=cell.n_kv_heads,
                 width=cell.width, vocab=256, context=160, seed=cell.seed)  # fmt: skip
    return model_of(made)


def _shuffled(name: str, seed: int) -> Model:
    source: Any = load(name)
    mixed = weight_shuffled(source.hf, seed=seed)
    return attach(mixed, tokenizer=source.tokenizer)


def _measure_control(
    model: Model, seed: int, what: str, wanted: Sequence[Detector], tallies: dict[tuple[str, int], Tally]
) -> None:
    # Without structure only those detectors can be judged whose chance level comes from the destroyed structure.
    chosen = [d for d in wanted if d.control is None] if what == "no structure" else wanted
    for _, group, found in _scans(model, chosen, seed, destroyed=what == "no structure"):
        for detector in group:
            heads = {line.head for line in found.scores[detector.name].observed(detector.minimum_effect)}
            tallies[detector.name, seed % 2].controls += [head in heads for head in model.heads]
