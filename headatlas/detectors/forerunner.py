"""Heads that look from an example's label to the token before it, where the example's text has been gathered."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, at_offset, mean_of, where_queries
from headatlas.task import Batch
from headatlas.tasks.foo_bar import foo_bar


# The authors count a head from five times even attention on, a twentieth in these prompts.
@detector(head_type="forerunner-head", task=foo_bar, version=1, minimum_effect=0.1, verdict_positions="label")
def forerunner(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from the labels of examples to the token before: 0 none, 1 all.

    Formula: mean over the labels l of A[l, l - 1], the copy magnitude of Cho et al. 2024 as in their code. Chance: the larger of two: the mean of A[i, i - 1]
    over the text's other tokens i, and that of A[l + 1, l - 1], from the token behind each label, so that neither a head which looks one
    token back wherever it is counts, nor one that looks at that token from anywhere. Differs: the authors measure the label of the last
    example and count the prompts in which it exceeds 5 / n, n their tokens; here all eight labels, and an amount, as there is a chance level.
    """
    return _mean_back(layer, _labels(batch, layer), 1)


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The larger of what other tokens give to the one before, and the token behind a label to the one before it: [example, head]."""
    labels = _labels(batch, layer)
    elsewhere = _mean_back(layer, (layer.text_positions >= 2) & ~labels, 1)
    return torch.maximum(elsewhere, _mean_back(layer, labels.roll(1, 1), 2))


def _mean_back(layer: LayerView, queries: Tensor, back: int) -> Tensor:
    """[example, head] mean attention of the queries [example, pos] bool to the token so far back."""
    return mean_of(where_queries(layer.band(0, 2)[..., back], queries))


def _labels(batch: Batch, layer: LayerView) -> Tensor:
    """[example, pos] which tokens are labels of examples."""
    columns = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    return (batch.positions["label"][..., None] == columns).any(1).to(layer.q.device)


def planted(batch: Batch) -> Planted:
    """Every label attends to the token before it, everything else to the first token."""
    length, labels = batch.tokens.shape[1], batch.positions["label"]
    return Planted(aimed((len(batch), length, length), labels, labels - 1))


def look_alike(batch: Batch) -> Planted:
    """A head that attends to the token before from everywhere."""
    length = batch.tokens.shape[1]
    return Planted(at_offset((len(batch), length, length), 1))
