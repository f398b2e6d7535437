"""Heads from whose output one can read whether the model says the same to another wording of the question."""

from __future__ import annotations

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.own_answers import probed
from headatlas.detectors._measures.seeds import seed_of
from headatlas.methods.sweeps.set_ablation import SetAblation, averaged_at
from headatlas.model import Model
from headatlas.task import Batch, Metric, fitting
from headatlas.tasks.facts import rewordings

PROMPTS = 192  # pairs of them


@model_detector(head_type="consistency-head", task=rewordings, version=2, minimum_effect=0.1, paired=False)
def consistency(model: Model, batch: Batch) -> Measured:
    """Accuracy of a linear probe for the same answer to two wordings on the head's output: 0.5 guessing, 0 always wrong, 1 always right.

    Formula: balanced accuracy of logistic regression on z at the end of each of 192 prompts, two wordings of a fact after each other, for
    whether the likeliest next token is the same behind both, in five-fold cross-validation that keeps all prompts about one subject together (Yang et al. 2024: heads by
    probes for consistent and inconsistent pairs). Chance: probes of labels that were shuffled among facts of the same relation: some
    relations are answered more evenly than others, and a head may know the relation alone. NaN where fewer than 20 prompts are of either kind. Differs: the paper's
    paraphrases are written by a language model, and what is answered is written out.
    """
    seed = seed_of(batch)
    prompts = fitting(rewordings, model.tokenizer, PROMPTS, seed)
    fact = prompts.labels["fact"]
    both = fact.bincount()[fact] == 2  # a tokenizer may express one wording only
    prompts = prompts.rows(both.nonzero().flatten())
    said = model.forward(prompts, logit_positions=prompts.positions["end"].reshape(-1, 1))[:, 0].argmax(-1).cpu()
    pairs = said.reshape(-1, 2)
    same = (pairs[:, 0] == pairs[:, 1]).repeat_interleave(2)
    return probed(model, prompts, same, prompts.labels["subject"], prompts.labels["relation"], seed=seed)


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """Heads give at the end what they give there on average: what they tell about one question is gone."""
    return averaged_at(model, batch, metric, batch.positions["end"].reshape(-1, 1))
