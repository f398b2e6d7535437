"""Heads that attend to the label of the right option of a multiple-choice question and write it as the answer."""

from __future__ import annotations

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.from_end import from_end
from headatlas.detectors._measures.multiple_choice import (
    OTHERS,
    TASK,
    label_places,
    letter_effects,
    over_others,
    raises,
)
from headatlas.model import Model
from headatlas.task import Batch


@model_detector(
    head_type="correct-letter-head",
    task=TASK,
    also=OTHERS,
    version=2,
    minimum_effect=0.1,
    needs=("unembedding",),
    verdict_positions="end",
)
def correct_letter(model: Model, batch: Batch) -> Measured:
    """Attention from the end to the right option's label, over the other labels: 0 no preference, 1 all on the right one.

    Formula: A[end, label y] - mean over x != y of A[end, label x], y the right option; 0 for heads whose direct effect by
    way of the labels does not, on average, raise the right label's logit over the others', by a hundredth of the largest at least (Lieberum et al. 2023: attention
    of correct letter heads, among nodes of high direct effect). The right option stands in each place equally often, so a
    preference for one place or one letter cancels. Chance: the same for a question that none of the options answers. A
    tenth of the attention is the least that counts.
    """
    assert batch.control is not None
    by_label = torch.from_numpy(letter_effects(model, batch).by_label).sum(-1)  # [example, head, letter]
    writes = raises(over_others(by_label, label_places(batch)[1]))

    def preference(part: Batch) -> torch.Tensor:
        places, right = label_places(part)
        keys = places[:, None].expand(-1, len(model.heads), -1)
        return over_others(from_end(model, part).gather(-1, keys), right) * writes

    return Measured(preference(batch), preference(batch.control))
