"""Heads that copy the answer out of a long text while the model writes it itself."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.methods.early_answering import written
from headatlas.methods.sweeps.set_ablation import SetAblation, resampled_at
from headatlas.model import LayerView, Model
from headatlas.task import Batch, Metric
from headatlas.tasks import needle

TASK = next(iter(needle.TASKS))
TOKENS = 50  # at most, as in the paper; a line ends the answer
RECALLED = 0.5  # share of the answer's words that must be written for a run to count


# The paper's own bound: a head is a retrieval head from a score of 0.1 on.
@model_detector(head_type="retrieval-head", task=TASK, version=1, minimum_effect=0.1, paired=False)
def retrieval_generated(model: Model, batch: Batch) -> Measured:
    """Share of the needle's tokens that a head copies while the model writes the answer: 0 none, 1 all.

    Formula: |g and k| / |k|, k the needle's tokens, g those tokens that the model writes (greedily, 50 at most, to the end of the line) while the key to
    which the head attends most, at the position that produces the token, lies in the needle and is that token (Wu et al. 2024).
    NaN for texts of whose answer not more than half of the words is written, as in the paper (ROUGE-1 recall). Chance: the same for the same
    writing behind a text whose needle says something else. Differs: what is written once the whole answer stands there does not count; one length of text, its needles in ten depths; `retrieval`
    is the same with the answer given.
    """
    assert batch.control is not None
    found = torch.full((2, len(batch), len(model.heads)), torch.nan)
    for row in range(len(batch)):
        start = int(batch.positions["predict"][row, 0]) + 1  # before the answer that the task gives
        kept = batch.mask[row, :start]
        shift = int((~kept).sum())  # padding on the left
        needle_at = batch.positions["needle"][row]
        needle_at = needle_at[needle_at >= 0]
        wanted = batch.tokens[row, needle_at].tolist()
        prompt = batch.tokens[row, :start][kept].tolist()
        room = min(TOKENS, model.tokenizer.context - len(prompt))
        own = _line(model, written(model, prompt, room, []))
        if _recall(model, own, wanted) <= RECALLED:
            continue
        whole = (i + 1 for i in range(len(own)) if set(wanted) <= set(own[: i + 1]))
        own = own[: next(whole, len(own))]  # a model that says it again copies itself
        for i, part in enumerate((batch, batch.control)):
            text = part.tokens[row, :start][kept].tolist()
            found[i, row] = _copied(model, text, own, (needle_at - shift).tolist(), len(set(wanted)))
    return Measured(found[0], found[1])


def _line(model: Model, own: list[int]) -> list[int]:
    """What was written before the first end of a line."""
    ends = (i for i in range(len(own)) if "\n" in model.tokenizer.decode(own[: i + 1]))
    return own[: next(ends, len(own))]


def _recall(model: Model, own: list[int], wanted: list[int]) -> float:
    """Share of the answer's words that were written, each counted as often as it was (ROUGE-1 recall)."""
    said, asked = (Counter(model.tokenizer.decode(ids).lower().replace(".", " ").split()) for ids in (own, wanted))
    return (said & asked).total() / max(asked.total(), 1)


@torch.no_grad()
def _copied(model: Model, text: list[int], own: list[int], needle_at: list[int], size: int) -> Tensor:
    """[head] the share of `size` different tokens of the needle that each head copies while `own` is written behind `text`."""
    tokens = torch.tensor([[*text, *own]])
    producing = torch.arange(len(text) - 1, tokens.shape[1] - 1)[None]
    parts: list[Tensor] = []

    def watch(layer: LayerView) -> None:
        best = layer.rows(producing.to(layer.q.device))[0].argmax(-1).cpu()  # [head, token written]
        copies = torch.isin(best, torch.tensor(needle_at)) & (tokens[0, best] == torch.tensor(own))
        parts.append(torch.tensor([len({own[i] for i in row.nonzero().flatten().tolist()}) / size for row in copies]))

    model.forward(
        Batch(tokens, torch.ones_like(tokens, dtype=torch.bool)),
        watch=watch,
        logit_positions=torch.zeros(1, dtype=torch.long),
    )
    return torch.cat(parts)


def removal(model: Model, batch: Batch, metric: Metric) -> SetAblation:
    """At the positions that produce the answer, heads give what they give where the needle says something else."""
    return resampled_at(model, batch, metric, batch.positions["predict"])
