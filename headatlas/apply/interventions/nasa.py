"""Negative attention score alignment: only the heads that lean to No are tuned, until yes and no are answered alike. Yu et al. 2024 (NASA)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.recipe.choosing import demand_own, held_back, strongest
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.learning import learn
from headatlas.apply.recipe.recipe import ALWAYS, Recipe, added_to_queries, names, query_rows
from headatlas.detectors.negative import negative
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch, Metric, logit_margin
from headatlas.task.answers import log_probability

PICK = 5
STEPS = 8  # of each head
RATE = 3e-3
ALIKE = 0.05  # gap of precision and recall at which tuning stops


@intervention(
    tasks=("yes-no", "yes-no-held-out"),
    metrics=("precision-recall gap", "accuracy", "logit-margin"),
    takes=("heads", "pick", "steps", "rate"),
    control="fitted",
    papers=("yu-2024-negative-attention-score",),
)
def nasa(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Tune the weights of the queries of the heads that lean to No, one after the other, on yes/no questions with their answers.

    Heads: those with the highest negative attention score of the detector negative-head (`pick`; 5), the highest first. Each is tuned for some steps of
    Adam by the log-probability of the right answer (`steps`; 8), all other weights left alone; after each the gap between precision and recall of Yes is
    taken on questions held back, and tuning ends where it is 0.05 or less; the heads tuned up to the smallest gap are kept. Keys are shared by heads, and stay. The
    gap (lower is better) is |precision - recall| of Yes, with its interval by the jackknife; a model that never says Yes is precise, with a gap of 1. Rivals: as many random heads
    of the same layers, tuned alike. Differs: the paper tunes keys, too, and sums the score over tokens, where the detector averages.
    """
    demand_own(batch, ("yes", "answer", "wrong"), ("yes", "no"), hint="Take the task yes-no.")
    part, choose = held_back(batch, options.seed)
    heads, score = options.heads_of(model), None
    if heads is None:
        found = negative.measure(model, part)
        lean = np.nanmean(found.values.numpy(), axis=0)
        heads, score = strongest(model, lean, options.pick or PICK)
    tuned, gaps = _tuned(model, part, choose, heads, options, progress)
    rng = np.random.default_rng(options.seed)
    free = sorted(set(model.heads) - set(heads))
    rivals = [
        _tuned(model, part, choose, sorted(matched(list(tuned), free, rng)), options, progress, whole=True)[0]
        for _ in range(options.draws)
    ]
    facts = {"heads": names(list(tuned)), "score": score, "steps": options.steps or STEPS, "rate": options.rate or RATE,
             "gaps": [round(one, 4) for one in gaps], "chosen_by": "precision-recall gap"}  # fmt: skip
    return Recipe(
        "nasa", query=tuned, when=ALWAYS, facts=facts,
        rivals=tuple(Recipe("nasa", query=one, when=ALWAYS) for one in rivals),
    )  # fmt: skip


def measures(recipe: Recipe) -> list[Metric]:
    """The gap, the share of right answers, and the margin of the right one."""
    return [
        GAP,
        Metric("accuracy", logit_margin.positions, lambda logits, batch: (logit_margin.score(logits, batch) > 0).double(), True, "share"),
        logit_margin,
    ]  # fmt: skip


def _tuned(
    model: Model,
    part: Batch,
    choose: Batch,
    heads: list[HeadId] | tuple[HeadId, ...],
    options: RecipeOptions,
    progress: Progress,
    *,
    whole: bool = False,
) -> tuple[dict[HeadId, Tensor], list[float]]:
    """Heads tuned one after the other, up to the smallest gap on prompts held back (whole: all of them), and the gap after each."""
    values: dict[HeadId, Tensor] = {}
    gaps = [] if whole else [_gap_on(model, choose, values)]  # the first without any
    for head in heads:
        value = torch.zeros_like(query_rows(model, head)[1], dtype=torch.float32).requires_grad_(True)
        with _in_force(model, {**values, head: value}):
            learn(
                model, part, log_probability, lambda: ({}, {}), [value], steps=options.steps or STEPS,
                rate=options.rate or RATE, seed=options.seed, progress=progress,
            )  # fmt: skip
        values[head] = value.detach().cpu()
        if not whole:
            gaps.append(_gap_on(model, choose, values))
            if gaps[-1] <= ALIKE:
                break
    kept = len(values) if whole else 1 + int(np.argmin(gaps[1:]))
    return dict(list(values.items())[:kept]), gaps


@contextlib.contextmanager
def _in_force(model: Model, values: Mapping[HeadId, Tensor]) -> Any:
    with contextlib.ExitStack() as stack:
        for head, value in values.items():
            stack.enter_context(added_to_queries(model, head, value))
        yield


def _gap_on(model: Model, batch: Batch, values: Mapping[HeadId, Tensor]) -> float:
    with _in_force(model, values):
        return float(metric_of(model, batch, GAP).mean())


def _gap(said: Any, asked: Any) -> float:
    """|precision - recall| of Yes; a model that never says Yes is precise."""
    hits = float((said & asked).sum())
    return abs(hits / said.sum() - hits / asked.sum()) if said.any() and asked.any() else float(asked.any())


def _jackknife(scores: Any, batch: Batch) -> Any:
    """[example] pseudo-values of the gap, n all - (n - 1) all but this one, so that a gap has an interval as means have."""
    asked = batch.labels["yes"].numpy() == 1
    said = (scores > 0) == asked
    n, every = len(said), np.arange(len(said))
    without = np.array([_gap(said[every != i], asked[every != i]) for i in range(n)])
    return n * _gap(said, asked) - (n - 1) * without


GAP = Metric("precision-recall gap", logit_margin.positions, logit_margin.score, False, "", settle=_jackknife)
