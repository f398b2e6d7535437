"""Heads that carry what is known of a subject to the last token."""

import torch

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.fact_recall import recall
from headatlas.detectors._measures.from_end import share_of
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.tasks.facts import facts

MINIMUM_ATTENTION = 0.2  # share of its attention beyond the first token that a head must give the subject


# Two percent of the logit: what the papers on circuits ask of a head that is to count as writing the answer.
@model_detector(
    head_type="mover-head",
    task=facts,
    version=1,
    minimum_effect=0.02,
    needs=("unembedding",),
    verdict_positions="end",
)
def mover(model: Model, batch: Batch) -> Measured:
    """Share of a fact's logit that a head brings from the subject to the last token: 0 none, 1 all of it.

    Formula: direct effect of the head at the last token on the object's logit through the tokens of the subject, over the
    mean size of that logit; 0 for heads that give the subject less than a fifth of the attention that they spend from there
    beyond the first token (Yao et al. 2024: mover heads attend from the last token to the subject and raise the answer). Unlike a
    subject head, it may read the relation as well. Logits are relative to the mean over the objects of all prompts. Chance: the
    same on an object of the relation that belongs to another subject. Differs: the paper's circuits have edges and a hit rate at 10; this is the
    head alone, and its share of attention (a fifth) is ours.
    """
    found = recall(model, batch)
    attends = share_of(model, batch, batch.positions["subject"]).mean(0) >= MINIMUM_ATTENTION
    return Measured(*(torch.from_numpy(part) * attends for part in (found.subject, found.other_subject)))
