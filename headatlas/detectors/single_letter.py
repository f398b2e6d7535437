"""Heads that attend to one and the same label of multiple-choice questions, whichever is right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.from_end import from_end
from headatlas.detectors._measures.multiple_choice import (
    OTHERS,
    TASK,
    label_places,
    letter_effects,
    letters,
    option_tokens,
    raises,
)
from headatlas.edits import Zero
from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.task import Batch, Metric


@model_detector(
    head_type="single-letter-head",
    task=TASK,
    also=OTHERS,
    version=1,
    minimum_effect=0.1,
    needs=("unembedding",),
)
def single_letter(model: Model, batch: Batch) -> Measured:
    """Attention from the end to the head's own label: 0 to none, 1 always to that one.

    Formula: A[end, label f], f the label of each set (A to D, 1 to 4, ...) that the head attends to most on the questions at even places;
    scored on those at odd places; 0 for heads whose direct effect by way of that label does not raise its logit over
    the other labels' (Lieberum et al. 2023: one fixed label takes most of the attention). Chance: the attention on all
    other labels together, or on the text of that label's own option, whichever is larger on average: more than half must be on the
    one label, and a head that looks at whatever stands near does not count. A tenth of the attention is the least that counts.
    """
    attention, (places, right) = from_end(model, batch), label_places(batch)
    seen = attention.gather(-1, places[:, None].expand(-1, len(model.heads), -1))  # [example, head, option]
    texts = torch.einsum("ehk,eok->eho", attention, option_tokens(batch).float())
    effects = torch.from_numpy(letter_effects(model, batch).by_label).diagonal(
        dim1=2, dim2=3
    )  # each label on its own letter
    values, control = (torch.full(seen.shape[:2], torch.nan) for _ in range(2))
    odd = torch.arange(len(batch)) % 2 == 1
    for kind in batch.labels["labels"].unique():
        own = batch.labels["labels"] == kind
        if not bool((own & ~odd).any()):
            continue
        favourite = _balanced(seen[own & ~odd], right[own & ~odd]).argmax(-1)
        scored = own & odd
        at = favourite.expand(int(scored.sum()), -1)[..., None]
        mass, text = (x[scored].gather(-1, at)[..., 0] for x in (seen, texts))
        writes = raises(effects[own].gather(-1, favourite.expand(int(own.sum()), -1)[..., None])[..., 0])
        values[scored] = mass * writes
        others = seen[scored].sum(-1) - mass
        control[scored] = torch.where(text.mean(0) > others.mean(0), text, others) * writes
    return Measured(values, control)


def _balanced(seen: Tensor, right: Tensor) -> Tensor:
    """[head, option] attention, averaged over questions of either right option first, so that no answer counts more than another."""
    kinds = [seen[right[:, option]].mean(0) for option in range(right.shape[1]) if bool(right[:, option].any())]
    return torch.stack(kinds).mean(0)


class _Silenced:
    """By how much the logit of the label that heads attend to most, over the other labels', falls when they give nothing at the end."""

    def __init__(self, model: Model, batch: Batch, metric: Metric) -> None:
        self.model, self.batch = model, batch
        self.metric = replace(metric, name="lead of the head's own label")
        self._clean = self._leads([])

    def metric_drop(self, heads: Iterable[HeadId]) -> Array:
        """The fall [example], each of the label that these heads attend to most in its set of labels."""
        chosen = sorted(set(heads))
        return self._at_own(chosen, self._clean - self._leads(chosen))

    def read(self, heads: Iterable[HeadId], logits: Tensor) -> Array:
        """[example] the lead of these heads' own label in logits [example, 1, vocabulary] at the end."""
        return self._at_own(sorted(set(heads)), self._of(logits))

    def _at_own(self, heads: list[HeadId], by_label: Tensor) -> Array:
        """[example] of [example, option] what belongs to the label that the heads attend to most in each set of labels."""
        places, right = label_places(self.batch)
        rows = [self.model.heads.index(head) for head in heads]
        seen = from_end(self.model, self.batch)[:, rows].sum(1).gather(1, places)[:, None]
        kinds = self.batch.labels["labels"]
        own = torch.empty(len(kinds), dtype=torch.long)
        for kind in kinds.unique():
            own[kinds == kind] = _balanced(seen[kinds == kind], right[kinds == kind]).argmax(-1)
        found: Array = by_label.gather(1, own[:, None])[:, 0].numpy()
        return found

    def _leads(self, heads: list[HeadId]) -> Tensor:
        """[example, option] logits of the labels minus the mean of the others', without these heads."""
        end = self.batch.positions["end"].reshape(-1, 1)
        edits = [Zero(heads, positions=end)] if heads else []
        return self._of(self.model.forward(self.batch, edits=edits, logit_positions=end))

    def _of(self, logits: Tensor) -> Tensor:
        ids = letters(self.batch)
        own = logits[:, 0].double().cpu().gather(1, ids)
        return own - (own.sum(1, keepdim=True) - own) / (ids.shape[1] - 1)


def removal(model: Model, batch: Batch, metric: Metric) -> _Silenced:
    """The heads give nothing at the last token, by what their own label loses.

    Not what they give on other questions, which is the same; and not the right label, which is theirs as often as any other.
    """
    return _Silenced(model, batch, metric)
