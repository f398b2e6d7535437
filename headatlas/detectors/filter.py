"""Heads whose query says what is looked for in a list, and which find the item that meets it, in other lists, too."""

from __future__ import annotations

from dataclasses import replace

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.name_movers import chance_at_least_zero, effect_unit
from headatlas.detectors._measures.swapped import swapped
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch, logit_difference
from headatlas.tasks.filter_list import filter_list


@model_detector(
    head_type="filter-head",
    task=filter_list,
    version=1,
    minimum_effect=0.02,
    verdict_positions="end",
)
def filter(model: Model, batch: Batch) -> Measured:
    """Turn from the item asked for to the one that meets another prompt's condition when the head's query is that prompt's: 0 none, 1 all of it.

    Formula: (d(patched) - d(clean)) / (mean logit of the right item minus the mean of the others' - d), d = logit of the item t minus the
    mean logit of the list's four others; t is of the kind that the other prompt asks for, in a list of other words; patched: the
    head's query at the last token is that of the other prompt (Sen Sharma et al. 2025: the effect of a single head's query; they
    choose sets by a mask that is trained on the same quantity). Chance: the same with the query of a prompt with
    that other list that asks for a kind of which this list has nothing. NaN for all heads where the model does not do the task. A
    fiftieth of a whole turn is the least that counts: the paper's heads act by dozens. Differs: one head at a time and shares in place of
    logits, lists of five kinds in one sentence each, all prompts and not only those that the model answers right.
    """
    assert batch.counterfactual is not None
    assert batch.control is not None
    answer, wrong = batch.answer.reshape(-1, 1), batch.wrong
    turned = replace(
        batch, labels={**batch.labels, "answer": wrong[:, 0], "wrong": torch.cat([answer, wrong[:, 1:]], 1)}
    )
    where = batch.positions["end"].reshape(-1, 1)
    bench = CachedRuns(model, turned, logit_difference, within=where)
    own = CachedRuns(model, batch, logit_difference, within=where).clean

    def moved(source: Batch) -> Array:
        return swapped(bench, source, where, component="q", source_at=source.positions["end"].reshape(-1, 1))

    unit = effect_unit(own - bench.clean) if effect_unit(own) > 0 else float("nan")
    values, chance = (moved(source) / unit for source in (batch.counterfactual, batch.control))
    return Measured(torch.from_numpy(values), torch.from_numpy(chance_at_least_zero(chance)))
