"""Heads whose average output at the end of a prompt of examples tells the model which task the examples show."""

from __future__ import annotations

from dataclasses import replace

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.seeds import seed_of
from headatlas.errors import UnfitTask
from headatlas.methods.function_vectors import SKILL, Injection, ends, indirect_effects, without
from headatlas.methods.sweeps.matched_controls import Removal
from headatlas.model import Model
from headatlas.task import HELD_OUT, Batch, Metric, find_task

MAPPINGS = ("singular-plural", "present-past", "antonym", "capitalize")
FEWEST = 3  # tasks that the model must do: what raises one task's answers may just be their words
AVERAGED = 16  # prompts an average is taken over, fewer where answers would give themselves away


@model_detector(
    head_type="function-vector", task=find_task(f"icl-{MAPPINGS[0]}"), version=2, minimum_effect=0.01, paired=False
)
def function_vector(model: Model, batch: Batch) -> Measured:
    """Rise of the answer's probability when the head's average output of a task is put in at the end: 0 none, 1 from 0 to certainty.

    Formula: average indirect effect: mean over prompts whose ten examples have their labels mixed up, of p(answer) with z
    at the last token replaced by its mean over prompts of the task that the model answers right, minus p(answer) as it is;
    mean over four mappings, those the model does (at least three, else undefined; Todd et al. 2024, section 2.3). Prompts
    that share an answer with the ones measured are left out of the mean. Chance: the same with the mean over prompts whose
    labels are mixed up, which takes the prompt's own noise away and brings no task. A point of probability for one head of
    hundreds is the least that counts.
    """
    each = max(2, -(-len(batch) // len(MAPPINGS)))
    found = [part for name in MAPPINGS if (part := _of_task(model, name, each, seed_of(batch))) is not None]
    if len(found) < FEWEST:
        undefined = torch.full((len(batch), len(model.heads)), torch.nan)
        return Measured(undefined, undefined)
    return Measured(torch.cat([part.values for part in found]), torch.cat([part.control for part in found]))


def _of_task(model: Model, name: str, n: int, seed: int) -> Measured | None:
    """Effects on n prompts of one task; None where the model does not do it."""
    try:
        drawn = find_task(f"icl-{name}")(model.tokenizer, n + AVERAGED, seed)
    except UnfitTask:
        return None
    measured = drawn.rows(slice(0, n))
    clean = without(drawn.rows(slice(n, n + AVERAGED)), measured.answer)
    if len(clean) < 4:
        return None
    right = ends(model, clean)
    if float(right.right.float().mean()) < SKILL:
        return None
    assert measured.counterfactual is not None
    mixed = ends(model, replace(measured.counterfactual, labels=measured.labels))
    effects = indirect_effects(model, measured, [right.mean(right.right), mixed.mean()])
    return Measured(*(torch.from_numpy(one) for one in effects))


def removal(model: Model, batch: Batch, metric: Metric) -> Removal:
    """The sum of what the heads write on average, added to the stream of prompts without examples."""
    task = f"icl-{MAPPINGS[0]}"
    seed = seed_of(batch)
    writes = ends(model, find_task(task)(model.tokenizer, AVERAGED, seed)).writes
    bare = find_task(f"{task}-zero-shot{HELD_OUT}")(model.tokenizer, 2 * len(batch), seed)
    return Injection(model, bare, metric, writes)
