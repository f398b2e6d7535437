"""Heads that help with most acronyms and mislead the model on those that it gets wrong."""

from __future__ import annotations

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.seeds import seed_of
from headatlas.methods.direct_logit_attribution import Toward, direct_effects
from headatlas.methods.path_patching.direct_effect import DirectPath
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch, Metric, fitting
from headatlas.tasks.acronyms import acronyms

PROMPTS = 256  # in which a slice of failures is looked for
FEWEST = 8  # failures below which nothing is said
ABLE = 0.5  # share of prompts that the model must get right


# A tenth of the fall: one head of many that would share it evenly has a hundredth.
@model_detector(
    head_type="vulnerable-head",
    task=acronyms,
    version=2,
    minimum_effect=0.1,
    paired=False,
    needs=("unembedding",),
)
def vulnerable(model: Model, batch: Batch) -> Measured:
    """Share of a head in what the right letter loses on acronyms that the model gets wrong: 0 none, 1 all of it.

    Formula: (D on a prompt answered right - D on a prompt answered wrong) / mean of the same for the model's own logits, D = direct
    effect on the logit of the right letter minus that of the strongest other one; prompts are paired by the letter asked for,
    and drawn anew (256, valid words all of them) rather than sought by gradients. 0 unless the mean of D is above 0 where the model is right and below 0
    where it is wrong: a head that always works against the answer is not vulnerable (Garcia-Carrasco et al. 2024,
    vulnerabilities: mean direct logit attribution on adversarial samples). Chance: the mean over all heads. NaN where the model gets fewer than
    eight prompts wrong, or not half of them right. Differs: the paper seeks adversarial acronyms by gradients; here valid ones
    are drawn and parted by whether the model gets them right.
    """
    pool = fitting(acronyms, model.tokenizer, PROMPTS, seed_of(batch))
    found = direct_effects(model, pool, toward=_against_strongest(model, pool))
    right, wrong = _paired(found.total > 0, pool.labels["letter"].reshape(-1).numpy())
    if len(right) < FEWEST or (found.total > 0).mean() < ABLE:
        nothing = torch.full((len(batch), len(model.heads)), torch.nan)
        return Measured(nothing, nothing)
    own, misled = found.values[right], found.values[wrong]
    turns = (own.mean(0) > 0) & (misled.mean(0) < 0)
    share: Array = (own - misled) / (found.total[right] - found.total[wrong]).mean()
    chance = np.broadcast_to(share.mean(1, keepdims=True), share.shape)
    return Measured(*(torch.from_numpy(part * turns) for part in (share, chance)))


def _against_strongest(model: Model, batch: Batch) -> Toward:
    """The logit of the right letter minus that of the other letter which the model finds likeliest."""
    end = batch.positions["end"].reshape(-1)
    logits = model.forward(batch, logit_positions=end[:, None])[:, 0].cpu()
    strongest = batch.wrong.gather(1, logits.gather(1, batch.wrong).argmax(1, keepdim=True))[:, 0]
    pair = torch.stack([batch.answer.reshape(-1), strongest], 1)
    return Toward(end, pair, torch.tensor([1.0, -1.0]).expand(len(batch), 2))


def _paired(right: np.ndarray, letter: np.ndarray) -> tuple[list[int], list[int]]:
    """Examples answered right and wrong, in pairs that ask for the letter of the same word; none is used twice."""
    pairs: tuple[list[int], list[int]] = ([], [])
    for which in np.unique(letter):
        sides = [np.flatnonzero((letter == which) & side).tolist() for side in (right, ~right)]
        for one, other in zip(*sides, strict=False):
            pairs[0].append(one)
            pairs[1].append(other)
    return pairs


def removal(model: Model, batch: Batch, metric: Metric) -> DirectPath:
    """The direct path of the heads replaced by that on prompts with another word in the place asked for."""
    return DirectPath(model, batch, metric)
