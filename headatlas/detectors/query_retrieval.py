"""Heads that attend from a question to the text that answers it, beyond what any question makes them attend to."""

from __future__ import annotations

import torch

from headatlas.detector import Measured, model_detector
from headatlas.model import Model
from headatlas.model.runs.mean_attention import mean_attention
from headatlas.model.text.reading import padded
from headatlas.ops.patterns import without_dips
from headatlas.task import Batch
from headatlas.tasks.documents import DOCUMENTS, documents

NOTHING = " N/A"  # a question without content


# By chance 0; the tenth best head of SmolLM2 has 0.1.
@model_detector(head_type="query-focused-retrieval-head", task=documents, version=1, minimum_effect=0.05)
def query_retrieval(model: Model, batch: Batch) -> Measured:
    """Attention of the question's tokens on the text that answers it, less that of a question without content: 0 none, 1 all.

    Formula: sum over the tokens k of the text that answers of A(k) - N(k), A(k) = mean over the question's tokens i of A[i, k], N the
    same for "N/A" in the question's place; tokens at or below mean - 2 standard deviations of their text are left out (Zhang et al. 2025,
    QRHead, as its code has it). Chance: the mean of the same over the texts that do not answer. Differs: the paper's question comes with an instruction before
    it and the marks of a chat behind it, whose tokens count as its own; here the question's tokens alone do. The paper's
    texts are passages of LongMemEval and of Natural Questions, here one sentence about each of six cities; it
    takes the best heads, here the text that answers must be ahead of the others by a least effect.
    """
    span = torch.cat([batch.positions["query"], batch.positions["asked"]], 1)  # all tokens of the question
    begins = span.where(span >= 0, batch.tokens.shape[1]).amin(1).tolist()
    added = model.tokenizer.encode(NOTHING)
    nothing = padded([[*row[:start], *added] for row, start in zip(batch.tokens.tolist(), begins, strict=True)])
    own = mean_attention(model, batch, span)
    without = mean_attention(model, nothing, torch.tensor(begins)[:, None] + torch.arange(len(added)))
    width = min(own.shape[-1], without.shape[-1])  # the texts stand before the question
    gain = own[..., :width] - without[..., :width]
    found = []
    for number in range(1, DOCUMENTS + 1):
        span = batch.positions[f"doc_{number}"]
        there = (span >= 0)[:, None]
        found.append(without_dips(gain.gather(2, span.clamp(min=0)[:, None].expand(-1, gain.shape[1], -1)), there))
    each = torch.stack(found, -1)  # [example, head, document]
    right = torch.nn.functional.one_hot(batch.labels["gold"], DOCUMENTS).bool()[:, None].expand_as(each)
    return Measured(each[right].unflatten(0, each.shape[:2]), each.masked_fill(right, torch.nan).nanmean(-1))
