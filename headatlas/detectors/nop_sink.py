"""Heads that rest on a token of almost no value, and so do nothing where there is nothing to do."""

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.detectors._sinks import NEGLIGIBLE, Sinks, SinkShare
from headatlas.edits.collect import pieces
from headatlas.model import Model
from headatlas.model.runs.shared_pass import Alongside, alone
from headatlas.task import Batch
from headatlas.tasks.prose import prose


@model_detector(head_type="nop-sink-head", task=prose, version=1, minimum_effect=0.25)
def nop_sink(model: Model, batch: Batch) -> Measured:
    """In how many texts a head rests on a token of almost no value: 0 in none, 1 in all.

    Formula: share of texts in which nine tenths of all queries give half of their attention or more to one token s, the one that gets
    most on average, and |u_s| is at most a fifth of the mean |u_j| of the other tokens, u = v W_O (Fesser et al. 2026). Chance: in how
    many of those texts another token's value, in place of the sink's, is as small beside the rest, each other token counting alike: all
    for a head that writes nothing anywhere, which is `inactive` and hands nothing over to a sink. A quarter of the texts is the
    least that counts; the paper takes heads from 50 of 4096 images on. Differs: text and decoders in place of images and vision
    transformers; queries before the sink do not see it and count as not resting there. The rule is that of the authors' code for sink events
    and their class NOP; of the paper the abstract was read.
    """
    found: Measured = alone(model, pieces(batch), SinkShare(_rule))
    return found


def _rule(sinks: Sinks) -> tuple[Tensor, Tensor]:
    rests = sinks.rests
    small, others = sinks.ratios(rests) <= NEGLIGIBLE, sinks.others[rests]
    found, chance = torch.zeros_like(rests), torch.zeros_like(rests, dtype=torch.float32)
    found[rests] = (small & sinks.mine[rests]).any(-1)
    chance[rests] = (small & others).sum(-1) / others.sum(-1)
    return found, chance


def alongside(model: Model, batch: Batch) -> Alongside:
    """The same from passes that others make."""
    return SinkShare(_rule)
