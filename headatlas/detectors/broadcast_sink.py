"""Heads that hand on from a sink the same content to all tokens."""

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.detectors._sinks import LOW_RANK, ORDINARY, Sinks, SinkShare
from headatlas.edits.collect import pieces
from headatlas.model import Model
from headatlas.model.runs.shared_pass import Alongside, alone
from headatlas.task import Batch
from headatlas.tasks.prose import prose


@model_detector(head_type="broadcast-sink-head", task=prose, version=1, minimum_effect=0.25)
def broadcast_sink(model: Model, batch: Batch) -> Measured:
    """In how many texts a head hands on one content from a sink to all tokens: 0 in none, 1 in all.

    Formula: share of texts in which nine tenths of all queries give half of their attention or more to one token s, the one that gets
    most on average, |u_s| is at least half of the mean |u_j| of the other tokens, u = v W_O, and the head's writes at all tokens have
    a stable rank |U|_F^2 / s_1^2 of 1.5 or less (Fesser et al. 2026). Chance: the same with the rank of the other tokens' values, which is
    that of the writes of a head that rests nowhere: a head whose values all point one way writes low ranks wherever it looks. A quarter of the
    texts is the least that counts; the paper takes heads from 50 of 4096 images on. Differs: text and decoders in place of images and
    vision transformers. In decoders the first token sees nothing before it: what is handed on from there is the same in all texts,
    and was not gathered. The rule is that of the authors' code for sink events and their class broadcast; of the paper the abstract was
    read.
    """
    found: Measured = alone(model, pieces(batch), SinkShare(_rule))
    return found


def _rule(sinks: Sinks) -> tuple[Tensor, Tensor]:
    asked = sinks.rests.clone()
    asked[sinks.rests] = sinks.ratio(sinks.rests) >= ORDINARY
    found, chance = torch.zeros_like(asked), torch.zeros_like(asked)
    found[asked] = sinks.write_rank(asked) <= LOW_RANK
    chance[asked] = sinks.value_rank(asked) <= LOW_RANK
    return found, chance


def alongside(model: Model, batch: Batch) -> Alongside:
    """The same from passes that others make."""
    return SinkShare(_rule)
