"""Heads that raise the label that leads already, without looking at the options."""

from __future__ import annotations

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.from_end import from_end
from headatlas.detectors._measures.multiple_choice import (
    OTHERS,
    TASK,
    label_places,
    letter_effects,
    option_tokens,
    raises,
)
from headatlas.methods.sweeps.set_ablation import another
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch

ON_LABELS = 0.1  # mean attention on labels from which on a head does look at the options


@model_detector(
    head_type="amplification-head",
    task=TASK,
    also=OTHERS,
    version=1,
    minimum_effect=0.3,
    needs=("unembedding",),
    verdict_positions="end",
)
def amplification(model: Model, batch: Batch) -> Measured:
    """How far a head, looking at the last tokens, writes what stands there already: 0 not at all, 1 looks nowhere else and writes just that.

    Formula: a r, a the attention from the end to the tokens behind the options, r the correlation over labels between the
    head's direct effect on their logits and what the parts below it have written for them; 0 for heads with a tenth
    of their attention or more on labels, and for those that do not raise the label that leads (Lieberum et al. 2023: amplification heads attend to the last tokens and raise the letter that leads). Chance: the
    same with what the parts below wrote in another prompt with these labels and another right option: labels that both like
    in every prompt say nothing. Three tenths ask for a correlation of a half in a head that spends most of its attention there.
    """
    attention, effects = from_end(model, batch), letter_effects(model, batch)
    behind = torch.arange(batch.tokens.shape[1]) > _last_option(batch)[:, None]
    near = torch.einsum("ehk,ek->eh", attention, behind.float())
    places = label_places(batch)[0]
    on_labels = attention.gather(-1, places[:, None].expand(-1, len(model.heads), -1)).sum(-1)
    away = on_labels.mean(0) < ON_LABELS
    layer_of = np.array([head.layer for head in model.heads])
    before = effects.before[:, layer_of]  # [example, head, letter]
    leading = np.take_along_axis(effects.heads, before.argmax(-1)[..., None], -1)[..., 0]
    kind, right = batch.labels["labels"], batch.labels["right"]
    other = another([kind], lambda i, j: bool(kind[i] == kind[j]) and bool(right[i] != right[j]))
    elsewhere = before[other.clamp(min=0).numpy()]
    elsewhere[(other < 0).numpy()] = np.nan
    weight = near * away * raises(torch.from_numpy(leading))
    return Measured(*(weight * torch.from_numpy(_correlation(effects.heads, x)) for x in (before, elsewhere)))


def _last_option(batch: Batch) -> torch.Tensor:
    """[example] the last token of the last option."""
    return torch.where(option_tokens(batch).any(1), torch.arange(batch.tokens.shape[1]), -1).amax(1)


def _correlation(x: Array, y: Array) -> Array:
    """Pearson's r over the last dimension; 0 where one of them is the same everywhere."""
    x, y = (one - one.mean(-1, keepdims=True) for one in (x, y))
    size = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    found: Array = (x * y).sum(-1) / np.where(size == 0, 1.0, size)
    return found
