"""Semantic consistency: heads that tell whether another wording gets the same answer are given a bias. Yang et al. 2024."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from headatlas.apply.recipe.choosing import demand_own
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.pushing import Pushing, end_of, push
from headatlas.apply.recipe.recipe import ALWAYS, Recipe
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch, Metric
from headatlas.task.answers import find_metric

WORDINGS = 2


@intervention(
    tasks=("rewordings", "rewordings-held-out"),
    metrics=("agreement", "accuracy"),
    takes=("heads", "pick", "alpha"),
    control="directions",
    papers=("yang-2024-semantic-consistency",),
)
def semantic_consistency(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Add a bias to heads so that two wordings of a question get the same answer.

    A prompt is consistent where the likeliest next token is the same behind its other wording. Heads: those with the most
    accurate linear probes for that at the prompt's end, in cross-validation that parts no subject (`pick`; 1 in 20). z + alpha * sigma * (mean of
    consistent prompts less that of the others, of length one) at every token. alpha: tried on facts held back, by agreement. Agreement: share of facts whose two wordings get
    the same answer; accuracy stands beside it, since a model that always says the same agrees with itself. Differs: the paper's paraphrases are
    written by a language model.
    """
    demand_own(batch, ("fact", "subject", "answer"), hint="Take the task rewordings.")
    batch = batch.rows(_in_pairs(batch.labels["fact"]).nonzero().flatten())
    said = metric_of(model, batch, replace(AGREEMENT, settle=None))
    same = batch.labels["fact"].new_tensor(_agree(said, batch).repeat(WORDINGS))
    order = batch.labels["fact"].argsort(stable=True)
    marked = {"same": same.new_zeros(len(batch)).scatter(0, order, same), "group": batch.labels["subject"]}
    batch = replace(batch, labels={**batch.labels, **marked})
    how = Pushing("same", AGREEMENT, read=end_of, alphas=(1.0, 2.0, 5.0, 10.0), when=ALWAYS)
    return push("semantic-consistency", model, batch, options, progress, how)


def measures(recipe: Recipe) -> list[Metric]:
    """Whether two wordings get one answer, and whether a prompt gets the right one."""
    return [AGREEMENT, find_metric("accuracy")]


def _in_pairs(fact: Tensor) -> Tensor:
    """[example] whether both wordings are there: a tokenizer may express one only."""
    return fact.bincount()[fact] == WORDINGS


def _said(logits: Tensor, batch: Batch) -> Tensor:
    return logits[:, 0].argmax(-1).double()


def _agree(said: Any, batch: Batch) -> Any:
    """[fact] 1 where both wordings got the same token, of facts that have both, in order of their number."""
    kept = np.flatnonzero(_in_pairs(batch.labels["fact"]).numpy())
    order = kept[np.argsort(batch.labels["fact"].numpy()[kept], kind="stable")]
    pairs = said[order].reshape(-1, WORDINGS)
    return (pairs[:, 0] == pairs[:, 1]).astype(int)


AGREEMENT = Metric("agreement", end_of, _said, True, "share", settle=_agree)
