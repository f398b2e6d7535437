"""Heads that attend to the labels of all options of a multiple-choice question alike, whichever is right."""

from __future__ import annotations

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.from_end import from_end
from headatlas.detectors._measures.multiple_choice import (
    OTHERS,
    TASK,
    label_places,
    letters,
    option_tokens,
    raises,
)
from headatlas.edits import Zero
from headatlas.methods.direct_logit_attribution import Toward, direct_effects
from headatlas.methods.sweeps.set_ablation import SetAblation
from headatlas.model import Model
from headatlas.task import Batch, Metric, logit_difference


@model_detector(
    head_type="constant-head",
    task=TASK,
    also=OTHERS,
    version=1,
    minimum_effect=0.1,
    needs=("unembedding",),
)
def constant(model: Model, batch: Batch) -> Measured:
    """Even attention from the end to the labels of all options: 0 for heads that miss one, 1 all on them and evenly.

    Formula: n min over x of A[end, label x], n the number of options, which is the attention on labels where it is even
    and falls to 0 as soon as one label is left out; 0 for heads whose direct effect by way of the labels does not raise
    labels over the first words of the options (Lieberum et al. 2023: heads of high direct effect that attend to all labels
    about equally). Chance: the same with the first token of each option in place of its label, so that broad attention does
    not count. A tenth of the attention is the least that counts. The verdict asks whether the model answers with a label at
    all: a head that raises all of them alike decides between none.
    """
    attention, places = from_end(model, batch), label_places(batch)[0]
    tokens = option_tokens(batch)
    firsts = tokens.float().argmax(-1)

    def even(keys: torch.Tensor) -> torch.Tensor:
        return keys.shape[1] * attention.gather(-1, keys[:, None].expand(-1, len(model.heads), -1)).amin(-1)

    asked = _whether_a_label(batch)
    found = direct_effects(model, asked, toward=Toward.answer(asked), by_source=True).by_source
    assert found is not None
    by_way = np.take_along_axis(found, places[:, None].expand(-1, len(model.heads), -1).numpy(), -1)
    writes = raises(torch.from_numpy(by_way.sum(-1)))
    return Measured(even(places) * writes, even(firsts) * writes)


def _whether_a_label(batch: Batch) -> Batch:
    """The same prompts, with all labels for the answer and the first tokens of the options' texts for the wrong one."""
    first = batch.tokens.gather(1, option_tokens(batch).float().argmax(-1))
    labels = letters(batch)
    wrong = first.masked_fill((first[:, :, None] == labels[:, None]).any(-1), -1)
    return Batch(
        batch.tokens, batch.mask, batch.positions, batch.marks, {**batch.labels, "answer": labels, "wrong": wrong},
        batch.facts,
    )  # fmt: skip


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """The heads give nothing at the last token, by what labels lose against the words of the options.

    Not what they give on other questions, which is the same.
    """
    end = batch.positions["end"].reshape(-1, 1)
    return SetAblation(model, _whether_a_label(batch), logit_difference, lambda heads: Zero(heads, positions=end), end)
