"""Heads that gather on the question mark."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed
from headatlas.task import Batch
from headatlas.tasks.questions import questions


@detector(head_type="interrogation-head", task=questions, version=1, minimum_effect=0.1, attention="bidirectional")
def interrogation(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from the words of a question to its question mark: 0 none, 1 all.

    Formula: mean over the tokens i of all questions of a text of A[i, question mark] (after Correia et al. 2019). Chance: the
    same from the tokens of a statement of the same words to its full stop, so that a head which attends to every mark, or to
    the end of every sentence, does not count.
    """
    return _mass(layer, batch, "question")


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The mass on the full stop of statements: [example, head]."""
    return _mass(layer, batch, "statement")


def _mass(layer: LayerView, batch: Batch, what: str) -> Tensor:
    queries, keys = (batch.positions[f"{what}_{end}"].to(layer.q.device) for end in ("query", "key"))
    found = layer.entries(queries, keys).float().nansum(-1)
    return found / (queries >= 0).sum(1)[:, None]  # 0 / 0 where a text has no such sentence


def planted(batch: Batch) -> Planted:
    """Every word of a question attends to the question mark."""
    n, length = batch.tokens.shape
    return Planted(aimed((n, length, length), batch.positions["question_query"], batch.positions["question_key"]))


def look_alike(batch: Batch) -> Planted:
    """A head that attends to the mark at the end of every sentence."""
    n, length = batch.tokens.shape
    both = (
        torch.cat([batch.positions[f"{what}_{end}"] for what in ("question", "statement")], 1)
        for end in ("query", "key")
    )
    queries, keys = both
    return Planted(aimed((n, length, length), queries, keys))
