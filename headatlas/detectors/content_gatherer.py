"""Heads that bring the text of the right option of a multiple-choice question to the last token."""

from __future__ import annotations

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.from_end import from_end
from headatlas.detectors._measures.multiple_choice import (
    OTHERS,
    TASK,
    label_places,
    option_tokens,
    over_others,
)
from headatlas.model import Model
from headatlas.task import Batch


@model_detector(
    head_type="content-gatherer-head",
    task=TASK,
    also=OTHERS,
    version=1,
    minimum_effect=0.1,
    verdict_positions="end",
)
def content_gatherer(model: Model, batch: Batch) -> Measured:
    """Attention from the end to the right option's text, over the other options': 0 no preference, 1 all on the right one.

    Formula: sum of A[end, k] over the tokens k of option y - mean over x != y of the same for option x, y the right option
    (Lieberum et al. 2023, content gatherers; nothing is asked of what they write, since later heads use it). The right
    option stands in each place equally often, so a preference for one place cancels. Chance: the same for a question
    that none of the options answers. A tenth of the attention is the least that counts. The verdict asks for their total effect,
    by which the paper finds them.
    """
    assert batch.control is not None

    def preference(part: Batch) -> torch.Tensor:
        mass = torch.einsum("ehk,eok->eho", from_end(model, part), option_tokens(part).float())
        return over_others(mass, label_places(part)[1])

    return Measured(preference(batch), preference(batch.control))
