"""Heads that read a member of an ordered series and write the next one."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.errors import UnfitTask
from headatlas.methods.weights.copying import ov_ranks
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.tasks._series import neighbours
from headatlas.tasks.succession import succession


@model_detector(head_type="successor-head", task=succession, version=2, minimum_effect=0.3)
def successor(model: Model, batch: Batch) -> Measured:
    """Share of series members whose next member the head writes first of its series: 0 none, 1 all.

    Formula: the token through the effective embedding (embedding and first MLP), the head's W_V W_O and the unembedding; 1
    where the next member stands highest among the members of the series, mean over all pairs that are single tokens
    (Gould et al. 2023, section 3, whose rule is 0.4). Chance: for each pair the
    share of the series' other members, the token itself left out, that stand highest in the successor's place. Weights
    only: the prompts of the task serve the verdict. Differs: the paper takes the first MLP's output alone.
    """
    source, members, goal = _pairs(model)
    targets = torch.where(members >= 0, members, source[:, None])
    known = (members >= 0)[:, None]
    ranks = torch.from_numpy(ov_ranks(model, source, targets, among=targets.unique()).raised)
    ranks = ranks.masked_fill(~known, torch.iinfo(torch.long).max)
    first = ranks == ranks.amin(-1, keepdim=True)  # [pair, head, member]
    first &= first.sum(-1, keepdim=True) == 1  # a head that writes nothing ranks all alike
    hit = (first & (members == goal[:, None])[:, None]).any(-1).float()
    others = known & (members != goal[:, None])[:, None] & (members != source[:, None])[:, None]
    return Measured(hit, (first & others).sum(-1) / others.sum(-1))


def _pairs(model: Model) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [pair], the members of each one's series [pair, longest] (-1 where it is shorter), next members [pair].

    Raises UnfitTask where the tokenizer has no series of at least four members as single tokens.
    """
    found = [(ids, pair) for ids, pairs in neighbours(model.tokenizer).values() if len(ids) > 3 for pair in pairs]
    if not found:
        raise UnfitTask("successor needs series whose members are single tokens; this tokenizer splits them all.")
    longest = max(len(ids) for ids, _ in found)
    members = torch.tensor([[*ids, *[-1] * (longest - len(ids))] for ids, _ in found])
    return torch.tensor([a for _, (a, _) in found]), members, torch.tensor([b for _, (_, b) in found])
