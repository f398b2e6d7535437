"""How often detectors are right: run them over a grid of models in which the truth is planted, and over controls."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headatlas.atlas import Run
from headatlas.detector import Detector, LayerDetector, detectors, find_detector
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab import planting_rates
from headatlas.lab.calibration.kept import Kept, Rates, keeping
from headatlas.lab.calibration.tally import Tallies, Tally, merge
from headatlas.lab.grid import QUICK, SOWN, TUNING, Cell, chance, controls, grid, half_of, model_of, planted, seeds
from headatlas.lab.head import Head
from headatlas.lab.measure import read, without
from headatlas.lab.planted import PlantedModel
from headatlas.lab.planting import Planting, plantings
from headatlas.lab.planting_rates import MATTERS, NOTHING
from headatlas.lab.toy.truth import rates, truth_in
from headatlas.lab.toys import read_toy
from headatlas.mining.scan import Scan, scan, scan_task
from headatlas.mining.verdicts import judge_task
from headatlas.model import Model
from headatlas.progress import Progress, Silent
from headatlas.task import Batch, Task

WEAKEST = 0.5  # positives with less of their attention on target are for the curve, not for the counts
SETTLED = 0.8  # negatives have at least this much of their attention where their own kind attends
EXAMPLES = 16
ASKED = 32  # examples on which it is measured what switching a head off costs in truth
LEVELS = (0.05, 0.01)  # of p-values, at which shares are counted in models of random weights


def label(detector: Detector, head: Head, share: float) -> bool | None:
    """Whether the detector should find this head: True, False, or None where it does not decide.

    share: how much of the head's attention really is on its targets. Positives below WEAKEST do not decide: they are there
    for the curve of score against strength. What a head leaves over rests on the first or the current token, where another
    detector may rightly see it: a head of another kind is a negative only from SETTLED on, or where nothing was planted.
    """
    if head.kind in detector.finds:
        return True if share >= WEAKEST else None
    if head.kind in detector.undecided:
        return None
    return False if head.kind == "noise" or share >= SETTLED else None


def calibrate(
    names: Sequence[str] | None = None,
    *,
    quick: bool = False,
    toys: Sequence[str | os.PathLike[str]] = (),
    keep: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run detectors over the grid and the controls. Raises UnknownName, BadInput, StoreError.

    keep: a path that nothing lies at; what is done is kept beside it (`<keep>.partial`) until all is, so that the same call after
    an interruption goes on from there. toys: folders of toys that `toy` trained, whose heads are judged by ablation as well
    (`headatlas.lab.toy.truth`). Thresholds may be chosen on the seeds of `grid.TUNING`; what is reported comes from other seeds. The result:
    {"detectors": [{"name", "auc", "precision", "recall", "verdict_precision", "verdict_recall", "refuted_precision",
    "false_discovery", ..., "tuning": {...}, "curve": [[strength, mean score, lowest, highest]],
    "chance": {kind of random weights: {"heads", "p<0.05", "p<0.01"}}}], "plantings": [{"name", "detector", "examples",
    "auc", "precision", "recall", "look_alikes_observed", "causal_precision", ..., "tuning": {...}}], "uncalibrated": [...],
    "toys": [{"detector", "toys", "heads", "named", "matter", "precision", "recall", "in_drop"}], "cells": n}.
    """
    wanted = [find_detector(name) for name in names] if names else [d for d in detectors().values() if d.calibrated]
    for detector in wanted:
        if not detector.calibrated:
            raise BadInput(
                f"No planted kind and no planting tests {detector.name}: it is uncalibrated.",
                f"Calibrated: {', '.join(d.name for d in detectors().values() if d.calibrated)}.",
            )
    progress = progress or Silent()
    for folder in toys:
        read_toy(folder)
    with keeping(None if keep is None else Path(keep), _identity(wanted, quick), progress.say) as kept:
        return _calibrated(wanted, quick, toys, kept, progress)


def _identity(wanted: Sequence[Detector], quick: bool) -> dict[str, Any]:
    """What decides the numbers: all of our own code, too, of which much is no detector's, task's or verdict's."""
    sources, home = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(home.rglob("*.py")):
        sources.update(str(path.relative_to(home)).encode() + b"\0" + path.read_bytes())
    run = Run({"quick": quick, "detectors": sorted(one.name for one in wanted), "code": sources.hexdigest()})
    return {"id": run.id, **run.facts}


def _calibrated(
    wanted: Sequence[Detector], quick: bool, toys: Sequence[str | os.PathLike[str]], kept: Kept, progress: Progress
) -> dict[str, Any]:
    sown = _plantings([d.name for d in wanted], quick, kept, progress)
    wanted = [d for d in wanted if d.finds]
    tallies: Tallies = {(d.name, half): Tally() for d in wanted for half in ("tuning", "reported")}
    cells = grid(quick=quick) if wanted else []
    nothing, random = (list(controls(quick)), list(chance(quick))) if wanted else ([], [])
    parts: dict[str, list[tuple[str, Callable[[], Tallies]]]] = {
        "planted models": [(cell.name, functools.partial(_measured, cell, wanted)) for cell in cells],
        "controls": [
            (f"{what} {i}", functools.partial(_measure_control, make, seed, what, wanted))
            for i, (make, seed, what) in enumerate(nothing)
        ],
        "models of random weights": [
            (f"{what} {seed}", functools.partial(_measure_chance, make, seed, what, wanted))
            for make, seed, what in random
        ],
    }
    for step, jobs in parts.items():
        for name, count in jobs:
            merge(tallies, kept.tallies(f"{step} {name}", count))
            progress.advance(step, of=len(jobs))
    trained = []
    for folder in toys:
        trained.append(truth_in(folder))
        progress.advance("trained toys", of=len(toys))
    rows = []
    for detector in wanted:
        reported, tuning = tallies[detector.name, "reported"], tallies[detector.name, "tuning"]
        rows.append(
            {"name": detector.name, "minimum_effect": detector.minimum_effect, **reported.rates(), "tuning": tuning.rates(),
             "curve": reported.curve_rows,
             "chance": {what: _chance_rates(p) for what, p in reported.chance.items()},
             "fake_observed": _share(reported.fake, 0), "fake_causal": _share([(word == "causal", "") for _, word in reported.fake], 0),
             "fake_group": _share([(word == "group", "") for _, word in reported.fake], 0)}
        )  # fmt: skip
    missing = sorted(name for name, d in detectors().items() if not d.calibrated)
    return {
        "detectors": rows,
        "plantings": sown,
        "sown": {
            **{half: sum(half_of(seed) == half for seed in _sown_seeds(quick)) for half in ("tuning", "reported")},
            "nothing": NOTHING,
            "matters": MATTERS,
        },
        "toys": rates(trained) if trained else [],
        "uncalibrated": missing,
        "cells": len(cells),
        "controls": len(nothing),
        "seeds": {
            half: sorted(seed for seed in seeds(quick) if half_of(seed) == half) for half in ("tuning", "reported")
        },
        "weakest": WEAKEST,
        "settled": SETTLED,
        "examples": EXAMPLES,
    }


def _sown_seeds(quick: bool) -> tuple[int, ...]:
    return (*TUNING, *QUICK) if quick else (*TUNING, *SOWN)


def _plantings(names: Sequence[str], quick: bool, kept: Kept, progress: Progress) -> list[dict[str, Any]]:
    """What `headatlas.lab.planting_rates` says of each planting of these detectors."""
    known = [one for one in plantings().values() if one.detector in names]
    chosen = _sown_seeds(quick)
    rows = []
    for one in known:
        halves = kept.rates(f"planting {one.name}", functools.partial(_planting, one, chosen))
        rows.append(
            {
                "name": one.name,
                "detector": one.detector,
                "examples": one.examples,
                **halves["reported"],
                "tuning": halves["tuning"],
            }
        )
        progress.advance("plantings", of=len(known))
    return rows


def _planting(one: Planting, chosen: Sequence[int]) -> Rates:
    return {
        half: planting_rates.measure_planting(one, [seed for seed in chosen if half_of(seed) == half]).rates()
        for half in ("reported", "tuning")
    }


def _chance_rates(p: Sequence[float]) -> dict[str, float | int]:
    return {"heads": len(p), **{f"p<{level}": float(np.mean(np.array(p) < level)) for level in LEVELS if len(p)}}


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


def _measured(cell: Cell, wanted: Sequence[Detector]) -> Tallies:
    planted_model, half = planted(cell), cell.half
    model, tallies = model_of(planted_model), {(one.name, half): Tally() for one in wanted}
    # What a planted head really does under noise is measured from the model's own eager attention, without detectors.
    real = {head.id: read(planted_model, head, n=8, seed=cell.seed).attention for head in planted_model.planted}
    for task, group, found in _scans(model, wanted, cell.seed):
        observed = {d.name: [line.head for line in found.scores[d.name].observed(d.minimum_effect)] for d in group}
        judged = _judged(planted_model, model, group, cell.seed) if task.name == "repeated" else {}
        for detector in group:
            tally, verdicts = tallies[detector.name, half], judged.get(detector.name, {})
            for line in found.scores[detector.name].summary():
                head = planted_model.truth[line.head]
                is_observed = line.head in observed[detector.name]
                if head.kind in detector.finds and not np.isnan(line.score):
                    tally.curve.append((round(real.get(line.head, 0.0), 1), line.score))
                decided = label(detector, head, real.get(line.head, 0.0))
                if decided is not None and not np.isnan(line.score):
                    tally.scores.append(line.excess)
                    tally.labels.append(decided)
                    tally.observed.append(is_observed)
            for head_id, head in planted_model.truth.items():
                if head.kind == "fake-induction" and real[head_id] >= WEAKEST:
                    word, _ = verdicts.get(head_id, ("not judged", None))
                    tally.fake.append((head_id in observed[detector.name], word))
            tally.verdicts += [(word, matters) for word, matters in verdicts.values() if matters is not None]
    return tallies


def _judged(
    planted_model: PlantedModel, model: Model, group: Sequence[Detector], seed: int
) -> dict[str, dict[HeadId, tuple[str, bool | None]]]:
    """By detector and head, the verdict that `headatlas mine` gives and whether the head really matters.

    It does where it costs at least MATTERS of the model's ability and more than 95% of the noise heads cost. It does not where
    it costs no more than NOTHING of the ability, or less than such a noise head. None: between the two.
    """
    task = group[0].task
    scan = scan_task(model, task, planting_rates.beside(group[0], model), task(model.tokenizer, EXAMPLES, seed))
    if scan.smallest is None:  # the model does not do the task: `mine` gives no verdicts
        return {}
    judged = judge_task(model, task, group, scan, n=EXAMPLES, seed=seed, progress=Silent()).detectors
    heads = {head for one in judged.values() for head in one.heads}
    costs = _costs(planted_model, model, [*heads, *planted_model.of("noise")], task, seed)
    usual, ability = np.quantile([costs[head] for head in planted_model.of("noise")], 0.95), scan.smallest / NOTHING

    def matters(head: HeadId) -> bool | None:
        if costs[head] <= max(usual, NOTHING * ability):
            return False
        return True if costs[head] >= MATTERS * ability else None

    return {name: {head: (word, matters(head)) for head, word in one.verdicts.items()} for name, one in judged.items()}


def _costs(
    planted_model: PlantedModel, model: Model, heads: Sequence[HeadId], task: Task, seed: int
) -> dict[HeadId, float]:
    """By how many nats the loss changes without each head, measured with a plain hook on the untouched model."""
    batch = task(model.tokenizer, ASKED, seed + planting_rates.OTHERS)
    metric = task.metric
    assert metric is not None

    def loss() -> float:
        with torch.no_grad():
            logits = planted_model.model(batch.tokens).logits
        places = batch.positions["predict"].clamp(min=0)
        at = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))
        return float(metric.score(at, batch).mean())

    clean, found = loss(), {}
    for head in heads:
        with without(planted_model.model, head):
            found[head] = abs(loss() - clean)
    return found


def _measure_control(make: Callable[[], Model], seed: int, what: str, wanted: Sequence[Detector]) -> Tallies:
    # Without structure only those detectors can be judged whose chance level comes from the destroyed structure.
    bare, model = what == "no structure", make()
    chosen = [d for d in wanted if not bare or (isinstance(d, LayerDetector) and d.needs_control_batch)]
    tallies: Tallies = {}
    for _, group, found in _scans(model, chosen, seed, destroyed=bare):
        for detector in group:
            heads = {line.head for line in found.scores[detector.name].observed(detector.minimum_effect)}
            tallies[detector.name, half_of(seed)] = Tally(controls=[head in heads for head in model.heads])
    return tallies


def _measure_chance(make: Callable[[], Model], seed: int, what: str, wanted: Sequence[Detector]) -> Tallies:
    tallies: Tallies = {}
    for _, group, found in _scans(make(), wanted, seed):
        for detector in group:
            lines = found.scores[detector.name].summary()
            known = [line.p for line in lines if not np.isnan(line.p)]
            tallies[detector.name, "reported"] = Tally(chance={what: known})
    return tallies
