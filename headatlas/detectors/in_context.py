"""Heads that compare an input with the examples before it and gather the labels of those that are like it."""

from __future__ import annotations

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.from_end import from_end
from headatlas.methods.direct_logit_attribution import Toward, direct_effects
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.tasks.foo_bar import foo_bar

NEGLIGIBLE = 0.01  # share of the largest mean effect of a head below which a head counts as writing nothing


@model_detector(
    head_type="in-context-head",
    task=foo_bar,
    version=1,
    minimum_effect=0.1,
    needs=("unembedding",),
    verdict_positions="end",
)
def in_context(model: Model, batch: Batch) -> Measured:
    """Attention from the end to labels of the query's class, over those of the other class: 0 no preference, 1 all on them.

    Formula: sum of A[end, p] over the labels p that are the right answer - the same over the other labels; 0 for heads whose direct effect
    by way of the labels does not raise the label that stands there over the other one, by a hundredth of the largest at least (Yu &
    Ananiadou 2024: one tower, query and key, compares the last position with each label's; the other, value and output, extracts the label). Labels
    mean nothing and are exchanged in half of the prompts. Chance: the same where the labels of the examples follow no rule. A tenth of
    the attention is the least that counts.
    """
    assert batch.control is not None

    def signs(part: Batch) -> torch.Tensor:
        """[example, key] 1 at labels that are the answer, -1 at the others, 0 elsewhere."""
        places = batch.positions["label"]
        own = part.tokens.gather(1, places) == batch.answer.reshape(-1, 1)
        return torch.zeros(part.tokens.shape).scatter(1, places, torch.where(own, 1.0, -1.0))

    def tower(part: Batch) -> torch.Tensor:
        return torch.einsum("ehk,ek->eh", from_end(model, part), signs(part))

    found = direct_effects(model, batch, toward=Toward.answer(batch), by_source=True).by_source
    assert found is not None
    # Each label's part, towards the label that stands there.
    extracts = torch.einsum("ehk,ek->eh", torch.from_numpy(found), signs(batch).double()).mean(0)
    copies = extracts > NEGLIGIBLE * extracts.abs().max()
    return Measured(tower(batch) * copies, tower(batch.control) * copies)
