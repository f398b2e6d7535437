"""Heads that raise the label of the right option of a multiple-choice question at the last token, wherever they look."""

from __future__ import annotations

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.multiple_choice import OTHERS, TASK, label_places, letter_effects, over_others
from headatlas.detectors._measures.name_movers import MINIMUM_EFFECT, effect_unit
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch

FACTOR = 2.0  # by which what follows the answer must exceed what is the same for every answer


@model_detector(
    head_type="correct-head",
    task=TASK,
    also=OTHERS,
    version=1,
    minimum_effect=MINIMUM_EFFECT,
    needs=("unembedding",),
    verdict_positions="end",
)
def correct(model: Model, batch: Batch) -> Measured:
    """Direct effect on the right label's logit over the other labels': 0 none, 1 all that the model knows of the answer.

    Formula: D[y] - mean over x != y of D[x], y the right label and D[x] what the head's output at the last token adds to the logit of
    label x, over the mean of the model's own lead of the right label; 0 for heads whose push for one label, the same
    whichever is right, is more than half of that (Wiegreffe et al. 2024, who project each head's output on the vocabulary
    and tell heads that always favour one letter from those that favour the right one; here the final norm keeps the scale that it
    has in the run). Chance: the same on a question that none of the options answers. NaN where the model does not
    answer better than there. Minimum effect: 2% of what the model knows. The paper's own prompts have two options after three
    answered questions: task mcqa-2-3-shot. Differs: the bar for a fixed preference (half of the difference) is ours.
    """
    assert batch.control is not None
    found, control = letter_effects(model, batch), letter_effects(model, batch.control)
    right = label_places(batch)[1]

    def lead(values: Array) -> Array:
        return over_others(torch.from_numpy(values), right).numpy()

    own, chance = lead(found.heads), lead(control.heads)
    unit = effect_unit(lead(found.total[:, None])[:, 0] - lead(control.total[:, None])[:, 0])
    follows = own.mean(0) >= FACTOR * _bias(found.heads, right.numpy())
    return Measured(*(torch.from_numpy(part * follows / unit) for part in (own, chance)))


def _bias(effects: Array, right: Array) -> Array:
    """[head] the largest push for one label over the others' mean, averaged over right options first, so that answers cancel."""
    options = right.shape[1]
    mean = np.stack([effects[right[:, option]].mean(0) for option in range(options)]).mean(0)  # [head, letter]
    found: Array = (mean - (mean.sum(-1, keepdims=True) - mean) / (options - 1)).max(-1)
    return found
