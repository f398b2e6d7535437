"""Attention into a long text with a needle in it: what the rest of the text gets, as chance level of what the needle gets."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.model.core.view import LayerView
from headatlas.task import Batch


def on_as_many_others(layer: LayerView, batch: Batch, queries: Tensor) -> Tensor:
    """[example, head] mean attention from queries [example, n] (-1: none) to a token of the text, times the number of the needle's tokens.

    The first token, the needle and the question are left out.
    """
    there = (queries >= 0).to(layer.q.device)
    rows = layer.rows(queries.clamp(min=0).to(layer.q.device)).float()  # [example, head, query, key]
    text = _text(batch).to(rows.device)
    share = torch.einsum("ehqk,ek,eq->eh", rows, text.float(), there.float()) / (text.sum(1) * there.sum(1))[:, None]
    return share * (batch.positions["needle"] >= 0).sum(1, keepdim=True).to(rows.device)


def _text(batch: Batch) -> Tensor:
    """[example, key] the tokens of the text without its first one, the needle and the question."""
    columns = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    asked, first = batch.positions["asked"], batch.mask.float().argmax(1, keepdim=True)
    before = columns < asked.where(asked >= 0, len(columns)).amin(1, keepdim=True)
    inside = batch.mask & before & (columns > first)
    return inside & ~(columns[None, :, None] == batch.positions["needle"][:, None]).any(-1)
