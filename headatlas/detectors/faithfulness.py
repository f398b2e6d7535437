"""Heads from whose output one can read whether the answer will rest on the chain of thought before it."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.own_answers import probed
from headatlas.detectors._measures.seeds import seed_of
from headatlas.methods.sweeps.set_ablation import SetAblation, averaged_at
from headatlas.model import Model
from headatlas.model.text.reading import padded
from headatlas.task import Batch, Metric, fitting
from headatlas.tasks.thoughts import thoughts

PROMPTS = 192


@model_detector(head_type="faithfulness-head", task=thoughts, version=2, minimum_effect=0.1, paired=False)
def faithfulness(model: Model, batch: Batch) -> Measured:
    """Accuracy of a linear probe for answers that rest on the thought on the head's output: 0.5 guessing, 0 always wrong, 1 always right.

    Formula: balanced accuracy of logistic regression on z at the last token of the thought in 192 prompts, for whether the number
    that the model answers becomes another when the thought is taken out, in five-fold cross-validation that keeps all prompts about one person
    together (Tanneru et al. 2024: probes for faithful and unfaithful chains of thought, by early answering). Chance: probes of labels that were
    shuffled among thoughts that are right, and among thoughts that are wrong. NaN where fewer than 20 answers rest on the thought, or do
    not. Differs: thoughts are given, one step long, and half of them wrong, where the paper's models write them;
    `headatlas score --metric aoc` lets the model write and takes the area over the curve.
    """
    seed = seed_of(batch)
    prompts = fitting(thoughts, model.tokenizer, PROMPTS, seed)
    with_it, without = (_answered(model, part, prompts.facts["numbers"]) for part in (prompts, _untold(prompts)))
    labels = prompts.labels
    return probed(model, prompts, with_it != without, labels["person"], labels["mistaken"], position="stop", seed=seed)


def _untold(prompts: Batch) -> Batch:
    """The prompts without their thoughts."""
    places = torch.cat([prompts.positions[name].reshape(len(prompts), -1) for name in ("thought", "result", "stop")], 1)
    gone = (torch.arange(prompts.tokens.shape[1]) == places[..., None]).any(1)
    return padded([row[kept].tolist() for row, kept in zip(prompts.tokens, prompts.mask & ~gone, strict=True)])


def _answered(model: Model, prompts: Batch, numbers: list[int]) -> Tensor:
    """[example] the likeliest of the number words at the end."""
    end = prompts.positions["end"].reshape(-1, 1)
    return model.forward(prompts, logit_positions=end)[:, 0, numbers].argmax(-1).cpu()


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """Heads give from the end of the thought on what they give there on average: what they tell about one thought is gone."""
    return averaged_at(model, batch, metric, torch.stack([batch.positions[name] for name in ("stop", "end")], 1))
