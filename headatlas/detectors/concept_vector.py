"""Heads whose outputs at the end are alike where the same relation is shown, in whatever format."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import rankdata

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.name_movers import chance_at_least_zero
from headatlas.detectors._measures.seeds import seed_of
from headatlas.model import LayerView, Model
from headatlas.ops.types import Array
from headatlas.task import HELD_OUT, Batch, Task, find_task
from headatlas.tasks._prompts import SECOND
from headatlas.tasks.concepts import concepts

REFERENCES = 48  # prompts that a batch's are compared with: four of each relation in each format
DIGITS = 4  # of a cosine: what differs in further ones is rounding, in heads that give the same everywhere


@model_detector(
    head_type="concept-vector-head",
    task=concepts,
    version=1,
    minimum_effect=0.1,
    verdict_positions="end",
)
def concept_vector(model: Model, batch: Batch) -> Measured:
    """Rank correlation of how alike a head's outputs are with whether the relation is the same: 0 none, 1 alike wherever it is.

    Formula: for each prompt, Spearman's rho over prompts in other formats, between the cosine of both outputs (z at the last token)
    and 1 where both show the same relation, else 0 (representational similarity analysis, Concept-RSA; Opiełka et al. 2026, equation 4). Chance:
    the same, at least 0 on average, for prompts of the same words whose outputs belong to other inputs: what words alone tell, or the tense and number
    of the outputs, is no relation. A tenth is the least that counts. Examples: 64 or more; 32 leave all but the strongest undecided. Differs: the paper correlates the lower triangle of one matrix, pairs
    of the same format among them, has no chance level and takes the best heads; here pairs of the same format are left out, since a
    head that tells every relation in every format apart is alike there, too, and prompts are compared with 48 others that are drawn for
    it, one row of the matrix each. Seven relations, answers by letter, and models of 7B and more there; four, answers by word, here.
    """
    assert batch.counterfactual is not None
    others = _task_of(batch)(model.tokenizer, REFERENCES, seed_of(batch))
    assert others.counterfactual is not None
    labels = batch.labels, others.labels
    alike = labels[0]["concept"][:, None] == labels[1]["concept"]
    counts = labels[0]["format"][:, None] != labels[1]["format"]
    own, words = (
        _invariance(_outputs(model, rows), _outputs(model, columns), alike, counts)
        for rows, columns in ((batch, others), (batch.counterfactual, others.counterfactual))
    )
    return Measured(torch.from_numpy(own), torch.from_numpy(chance_at_least_zero(words)))


def _task_of(batch: Batch) -> Task:
    """The task that made a batch, by its half and its family."""
    task = find_task(concepts.name + (HELD_OUT if batch.facts["half"] == "test" else ""))
    return task.second if batch.facts["family"] == SECOND and task.second is not None else task


def _outputs(model: Model, batch: Batch) -> torch.Tensor:
    """[example, head, d_value] z at the end, of length 1."""
    found: list[torch.Tensor] = []
    each = torch.arange(len(batch))

    def watch(layer: LayerView) -> None:
        z = layer.z[each, batch.positions["end"]].detach().cpu().double()
        found.append(torch.nn.functional.normalize(z, dim=-1))

    with torch.no_grad():
        model.forward(batch, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    return torch.cat(found, 1)


def _invariance(rows: torch.Tensor, columns: torch.Tensor, alike: torch.Tensor, counts: torch.Tensor) -> Array:
    """[example, head] Spearman's rho between cosines of rows [example, head, d] with columns [other, head, d] and `alike`, where `counts` [example, other]."""
    cosines = torch.einsum("ehd,ohd->eho", rows, columns).numpy().round(DIGITS)
    found = np.zeros(cosines.shape[:2])
    for e in range(len(cosines)):
        ranks = rankdata(cosines[e][:, counts[e].numpy()], axis=1)
        same = alike[e, counts[e]].double().numpy()
        ranks, same = ranks - ranks.mean(1, keepdims=True), same - same.mean()
        size = np.sqrt((ranks**2).sum(1) * (same**2).sum())
        np.divide(ranks @ same, size, out=found[e], where=size > 0)  # outputs that are all alike tell nothing
    return found
