"""Heads that know what kind of answer a question wants, whoever it is about."""

import numpy as np
import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.fact_recall import among_relations, recall
from headatlas.methods.sweeps.set_ablation import SetAblation, averaged_at
from headatlas.model import Model
from headatlas.task import Batch, Metric
from headatlas.tasks.facts import facts


# Two percent of the logit: what the papers on circuits ask of a head that is to count as writing the answer.
@model_detector(head_type="relation-head", task=facts, version=1, minimum_effect=0.02, needs=("unembedding",))
def relation(model: Model, batch: Batch) -> Measured:
    """Share of a fact's logit that a head takes from the relation's tokens and from nowhere else: 0 none, 1 all of it.

    Formula: direct effect of the head at the last token on the object's logit through the tokens of the relation, over the
    mean size of that logit; 0 for heads that do not take ten times as much from there as from the subject's tokens
    (Chughtai et al. 2024). Logits are relative to the mean over the objects of all prompts. Chance: the same on the answer
    to the next prompt with another relation.
    """
    found = recall(model, batch)
    own = found.source == "relation"
    return Measured(*(torch.from_numpy(np.where(own, part, 0.0)) for part in (found.relation, found.other_relation)))


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """Mean ablation at the last token, by what the answer loses against answers to other relations.

    The task's wrong answer belongs to the same relation, and heads that raise both alike could never move its metric.
    """
    return averaged_at(model, among_relations(batch), metric, batch.positions["end"].reshape(-1, 1))
