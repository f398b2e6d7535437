"""Probes for something about the model's own answers: they are labels that only a run of the model gives."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.detector import Measured
from headatlas.detectors._measures.seeds import seed_of
from headatlas.methods.labels import Labels
from headatlas.methods.probing import CrossValidation, probe
from headatlas.model import Model
from headatlas.task import Batch, Task, fitting

FEWEST = 20  # prompts of either class below which nothing is said
FOLDS = 5
SHUFFLES = 4
PROMPTS = 192  # of another task than the batch's, or more of it


def probed(
    model: Model, prompts: Batch, label: Tensor, group: Tensor, within: Tensor, *, position: str = "end", seed: int = 0
) -> Measured:
    """[group, head] balanced accuracy of linear probes for a label [example] of 0 and 1 at a position, and that with shuffled labels.

    group [example]: which prompts must not be parted. within [example]: among which prompts labels are shuffled: what gives
    the label away without being it is then part of chance. NaN where fewer than FEWEST prompts, or groups than folds, have
    either label: the model is always alike.
    """
    y = label.long().numpy()
    groups = _numbered(group)
    if any((y == one).sum() < FEWEST for one in (0, 1)) or any(
        len(np.unique(groups[y == one])) < FOLDS for one in (0, 1)
    ):
        nothing = torch.full((len(np.unique(groups)), len(model.heads)), torch.nan)
        return Measured(nothing, nothing)
    labels = Labels(y, groups, ("no", "yes"), _numbered(within))
    how = CrossValidation(folds=FOLDS, shuffles=SHUFFLES, test=0, seed=seed)
    found = probe(model, prompts, labels, position=position, validation=how).scores
    return Measured(torch.from_numpy(found.values), torch.from_numpy(found.control))


def chosen(model: Model, prompts: Batch) -> Tensor:
    """[example] which of a prompt's answers the model prefers at its end: the place in its right ones, then in its wrong ones."""
    options = torch.cat([part.reshape(len(prompts), -1) for part in (prompts.answer, prompts.wrong)], 1)
    logits = model.forward(prompts, logit_positions=prompts.positions["end"].reshape(-1, 1))[:, 0].float().cpu()
    return logits.gather(1, options.clamp(min=0)).masked_fill(options < 0, -torch.inf).argmax(1)


def by_preference(model: Model, batch: Batch, task: Task) -> Measured:
    """[person asked about, head] probes at the end of more prompts of a task on notes in another language: does the model prefer a right one?

    Shuffled labels stay among prompts of the same two languages. NaN as in `probed`.
    """
    seed = seed_of(batch)
    prompts = fitting(task, model.tokenizer, PROMPTS, seed)
    preferred = chosen(model, prompts) < prompts.answer.shape[1]
    languages = prompts.labels["note_in"] * len(prompts.facts["languages"]) + prompts.labels["question_in"]
    return probed(model, prompts, preferred, prompts.labels["asked"], languages, seed=seed)


def _numbered(values: Tensor) -> NDArray[np.int64]:
    found: NDArray[np.int64] = values.unique(return_inverse=True)[1].numpy()
    return found
