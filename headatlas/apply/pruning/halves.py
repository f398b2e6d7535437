"""Texts to order heads on, and others to say what their removal costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from headatlas.errors import BadInput
from headatlas.methods.attribution.importance import masked_for_encoders
from headatlas.methods.measured_by.choice import texts_measured
from headatlas.methods.measured_by.clean_run import with_clean_vector
from headatlas.methods.prompts import (
    MeasuredPrompts,
    Prompts,
    demand_logits,
    demand_pair,
    own_prompts,
    prompts_for,
)
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.text.reading import as_batch
from headatlas.model.text.start_end import said_of
from headatlas.task import Batch, Metric, next_token_loss
from headatlas.task.answers import first_alternatives, log_probability
from headatlas.task.encoders import pooled_change

LEAST = 2  # texts of a half: fewer have no interval


@dataclass(frozen=True)
class Halves:
    """ordering: the batch on which heads are ordered; held_out: on which their removal is measured, by the same metric."""

    name: str
    ordering: Batch
    held_out: Batch
    metric: Metric
    facts: Mapping[str, Any] = field(default_factory=dict)


def halves_of(model: Model, given: Inputs | Prompts, held_out: Inputs | Prompts | None, seed: int) -> Halves:
    """The two batches. Of a task, `n` prompts are drawn for each; other prompts are parted by lot unless held_out is given.

    Texts without answers are scored by the loss of their tokens, those of an encoder masked; an encoder-decoder's by what `mine` measures
    it by (`measured_by.choice`), a pair's by the loss of what the decoder reads; a model without token logits by how far its pooled vector moves. Raises BadInput, UnknownName, UnfitTask, UnsupportedModel.
    """
    given = given if isinstance(given, Prompts) else Prompts(batch=given)
    task = given.task is not None
    read = _read(model, replace(given, n=2 * given.n) if task and held_out is None else given)
    if held_out is not None:
        other = held_out if isinstance(held_out, Prompts) else Prompts(batch=held_out)
        test = _read(model, replace(other, metric=other.metric or given.metric))
        if test.metric.name != read.metric.name:
            raise BadInput(
                f"Heads are ordered by {read.metric.name}, and held-out prompts are scored by {test.metric.name}.",
                "Give both prompts answers, or name one metric.",
            )
        first, second = read.batch, test.batch
    else:
        n = len(read.batch)
        order = torch.arange(n) if task else torch.from_numpy(np.random.default_rng(seed).permutation(n))
        first, second = (read.batch.rows(rows) for rows in (order[: n // 2], order[n // 2 :]))
    if min(len(first), len(second)) < LEAST:
        raise BadInput(
            f"Heads are ordered on some texts and measured on others, and there are {len(first)} and {len(second)}.",
            f"Give {2 * LEAST} or more (--n {LEAST} of a task).",
        )
    facts = {
        "model": model.name, "prompts": read.name, "metric": read.metric.name, "unit": read.metric.unit,
        "higher_is_better": read.metric.higher_is_better, "n_ordering": len(first), "n_held_out": len(second), **read.facts,
    }  # fmt: skip
    return Halves(read.name, first, second, read.metric, facts)


def _read(model: Model, given: Prompts) -> MeasuredPrompts:
    """Prompts with the metric that pruning goes by."""
    if given.metric is None and not model.has_logits and model.kind == "encoder" and "input_ids" in model.accepts:
        given = replace(given, metric=pooled_change)
    own = own_prompts(model, given) if given.task is None else None
    if given.task is None:
        own = first_alternatives(as_batch(given.batch, model.tokenizer) if own is None else own)
    if own is not None and "answer" not in own.labels and given.metric in (None, next_token_loss, pooled_change):
        metric = next_token_loss if given.metric is None else given.metric
        assert isinstance(metric, Metric)
        pair = isinstance(given.batch, Batch) and given.batch.encoder is not None
        if model.kind == "encoder-decoder" and given.metric is None and not pair:
            own, metric = texts_measured(model, own)
        else:
            demand_logits(model, metric)
            demand_pair(model, own, metric)
            own = _predicting(own)
        found = MeasuredPrompts(
            str(given.prompts or "texts of one's own"), own, metric, {"start_end": said_of(own.facts)}
        )
    else:
        found = prompts_for(model, given, demand=False, unanswered=log_probability)
    batch, metric = masked_for_encoders(model, found.batch, found.metric)
    if metric is pooled_change:
        batch = with_clean_vector(model, batch)
    return replace(found, batch=batch, metric=metric)


def _predicting(batch: Batch) -> Batch:
    """The batch with positions["predict"], where it has none: every token that another of its text follows."""
    if "predict" in batch.positions or batch.tokens.shape[1] < 2:
        return batch
    follows = torch.nn.functional.pad(batch.mask[:, 1:] & batch.mask[:, :-1], (0, 1))
    places = torch.where(follows, torch.arange(batch.tokens.shape[1]), -1)
    return replace(batch, positions={**batch.positions, "predict": places})
