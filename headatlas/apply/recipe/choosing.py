"""What interventions share while they are fitted: prompts held back, strengths tried on them, answers to be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.recipe.recipe import Recipe
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import Model
from headatlas.model.text.reading import padded
from headatlas.model.text.start_end import rule_of
from headatlas.ops.types import Array
from headatlas.progress import Progress
from headatlas.task import Batch, Metric, Vocabulary

HELD_BACK = 0.25  # share of the groups of prompts on which strengths are tried


def held_back(batch: Batch, seed: int, share: float = HELD_BACK) -> tuple[Batch, Batch]:
    """The prompts that a fit learns from, and those that it chooses strengths on; no group (question) is parted.

    Groups are labels "group" or "pair" where the batch has them; equal prompts are always one. Raises BadInput for fewer than four groups.
    """
    label = next((name for name in ("group", "pair") if name in batch.labels), None)
    number: Tensor = torch.where(batch.mask, batch.tokens, -1).unique(dim=0, return_inverse=True)[1]
    number = number if label is None else batch.labels[label].unique(return_inverse=True)[1]
    # In the order in which they appear, so that the split does not hang on the tokens' ids.
    order = list(dict.fromkeys(number.tolist()))
    if len(order) < 4:
        raise BadInput(
            f"{len(order)} different prompts are too few to fit on some and to choose on others.", "Give 4 or more."
        )
    mixed = [order[i] for i in np.random.default_rng(seed).permutation(len(order))]
    held = torch.isin(number, torch.tensor(mixed[: max(1, round(share * len(order)))]))
    return batch.rows((~held).nonzero().flatten()), batch.rows(held.nonzero().flatten())


def best_of(
    model: Model, recipes: Sequence[Recipe], batch: Batch, metric: Metric, progress: Progress
) -> tuple[int, list[float]]:
    """Which of several recipes does best by a metric on held-back prompts (the first of equals), and what each reaches."""
    reached = []
    for one in recipes:
        with one.tuned(model):
            values = metric_of(model, batch, metric, edits=one.edits_for(metric.positions(batch)))
        reached.append(float(-metric.worse(values.mean())))
        progress.advance("try strengths", of=len(recipes))
    return int(np.argmax(reached)), reached


def strongest(model: Model, values: Array, k: int) -> tuple[tuple[HeadId, ...], list[float]]:
    """The k heads with the highest of `values` [head of the model] (the first of equals), and these values."""
    order = np.argsort(-values, kind="stable")[:k]
    return tuple(model.heads[int(i)] for i in order), [round(float(values[i]), 4) for i in order]


def answered(tokenizer: Vocabulary, items: Iterable[tuple[str, str, bool, int]]) -> Batch:
    """Prompts with answers written behind them, of (prompt, answer, whether it is right, question): what MC1 and MC2 read.

    labels: right, best, group, targets and answer; positions: predict, end (of the prompt), answered (the last token).
    """
    front = list(rule_of(tokenizer).front)
    rows, starts, ends, targets, told = [], [], [], [], []
    for prompt, answer, right, question in items:
        ids, said = [*front, *tokenizer.encode(prompt)], tokenizer.encode(f" {answer}")
        rows.append([*ids, *said])
        starts.append(list(range(len(ids) - 1, len(ids) + len(said) - 1)))
        targets.append(said)
        ends.append(len(ids) - 1)
        told.append((int(right), question))
    batch = padded(rows)
    right, group = torch.tensor(told).T
    first = torch.tensor([one[0] for one in targets])
    labels = {"right": right, "best": right, "group": group, "targets": _filled(targets), "answer": first}
    positions = {
        "predict": _filled(starts), "end": torch.tensor(ends), "answered": torch.tensor([len(r) - 1 for r in rows])
    }  # fmt: skip
    facts = {"bos": tokenizer.bos}
    return Batch(batch.tokens, batch.mask, positions, labels=labels, facts=facts)


def _filled(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])


def demand_own(batch: Batch, labels: Sequence[str] = (), positions: Sequence[str] = (), *, hint: str) -> None:
    """Raise BadInput, naming the first, where prompts lack labels or positions that an intervention reads."""
    lacking = [f"label '{one}'" for one in labels if one not in batch.labels]
    lacking += [f"position '{one}'" for one in positions if one not in batch.positions]
    if lacking:
        raise BadInput(f"These prompts have no {lacking[0]}.", hint)


def last_told(batch: Batch) -> Tensor:
    """[example, 1] the last token of each prompt with its answer, where one is written behind it; else its end."""
    columns = torch.arange(batch.tokens.shape[1])
    return torch.where(batch.mask, columns, -1).amax(1, keepdim=True)


def two_classes(batch: Batch, label: str) -> Tensor:
    """[example] a label of 1 and 0. Raises BadInput where there is none, or it has other values."""
    value = batch.labels.get(label)
    if value is None or value.ndim != 1 or sorted(set(value.tolist())) != [0, 1]:
        known = ", ".join(
            one for one, found in batch.labels.items() if found.ndim == 1 and sorted(set(found.tolist())) == [0, 1]
        )
        raise BadInput(
            f"These prompts have no label '{label}' of two classes, both present.",
            f"Name one with --label; they have {known or 'none'}.",
        )
    return value
