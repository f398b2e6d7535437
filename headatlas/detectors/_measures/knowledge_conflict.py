"""Path patching of heads to the logits in a knowledge conflict: the answer that the context claims against the one from memory.

Jin et al. 2024 (PH3): a head gives what it gave where country and claim are others, all other heads what they gave on the prompt itself, and the
logits say whether it had spoken for the answer of the context or for the one from memory.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headatlas.methods.path_patching.sweep import path_patch
from headatlas.methods.prompts import Prompts
from headatlas.methods.sweeps.effects import HeadEffects
from headatlas.methods.sweeps.set_ablation import another
from headatlas.model import Model
from headatlas.ops.memo import once
from headatlas.ops.types import Array
from headatlas.task import Batch, logit_difference


class ConflictEffects(NamedTuple):
    """By how much logit(claimed answer) - logit(remembered answer) falls, divided by the mean size of this difference.

    claimed: [example, head]. unrelated: the same for the claimed and remembered answers of a third prompt, which neither
    this one nor the other one mentions; NaN where there are no such prompts.
    """

    claimed: Array
    unrelated: Array


def conflict_effects(model: Model, batch: Batch) -> ConflictEffects:
    """Path patching on a batch of the task `knowledge-conflict`, computed once for a batch."""
    return once(model, batch, "effects in knowledge conflicts", lambda: _conflict_effects(model, batch))


def _conflict_effects(model: Model, batch: Batch) -> ConflictEffects:
    pairs = torch.stack([batch.answer.reshape(len(batch), -1)[:, 0], batch.wrong.reshape(len(batch), -1)[:, 0]], 1)
    other = about_others(batch)
    claimed, unrelated = (np.full((len(batch), len(model.heads)), np.nan) for _ in range(2))
    if other is None:
        return ConflictEffects(claimed, unrelated)
    changed = (other.tokens != batch.tokens).any(1)
    unit = float("nan")
    for target, asked in ((claimed, torch.arange(len(batch))), (unrelated, _stranger(batch, pairs, other))):
        rows = (changed & (asked >= 0)).nonzero().flatten()
        if len(rows):
            found = _patched(model, batch.rows(rows), other.rows(rows), pairs[asked[rows]])
            unit = float(np.abs(found.base).mean()) if target is claimed else unit
            target[rows.numpy()] = (found.base[:, None] - found.values[..., 0]) / unit
    return ConflictEffects(claimed, unrelated)


def _patched(model: Model, batch: Batch, other: Batch, pairs: Tensor) -> HeadEffects:
    """logit(pairs[:, 0]) - logit(pairs[:, 1]) where each head in turn sends what it gives on the other prompts."""
    labels = {**batch.labels, "answer": pairs[:, 0], "wrong": pairs[:, 1]}
    prompts = replace(batch, labels=labels, counterfactual=other, control=None)
    return path_patch(
        model, Prompts(batch=prompts, metric=logit_difference, force=True), None, "logits", positions="end"
    )


def about_others(batch: Batch) -> Batch | None:
    """The prompts with country and claim replaced, wherever they stand, by those of other prompts of as many tokens.

    The new claim is neither answer of the prompt nor the new country's capital, and that is no answer of it either; they are its answers. A
    prompt for which the batch holds no such others stays as it is. None where none can be replaced.
    """
    pairs = torch.stack([batch.answer.reshape(len(batch), -1)[:, 0], batch.wrong.reshape(len(batch), -1)[:, 0]], 1)
    words = {name: [_tokens(batch, name, e) for e in range(len(batch))] for name in ("country", "claim")}

    def elsewhere(i: int, j: int) -> bool:  # another country's prompt, whose true capital is no answer of this one
        own, new = words["country"][i], words["country"][j]
        return own != new and len(own) == len(new) and int(pairs[j, 1]) not in pairs[i].tolist()

    country = another([pairs], elsewhere)

    def claims_otherwise(i: int, j: int) -> bool:
        own, new = words["claim"][i], words["claim"][j]
        barred = {*pairs[i].tolist(), int(pairs[country[i], 1])}
        return own != new and len(own) == len(new) and int(pairs[j, 0]) not in barred

    claim = another([pairs], claims_otherwise)
    tokens, known = batch.tokens.clone(), (country >= 0) & (claim >= 0)
    for name, chosen in (("country", country), ("claim", claim)):
        for mention in [one for one in batch.positions if re.fullmatch(rf"{name}(_\d+)?", one)]:
            for e, where in enumerate(batch.positions[mention]):
                if known[e] and (where >= 0).any():
                    tokens[e, where[where >= 0]] = torch.tensor(words[name][chosen[e]])
    if torch.equal(tokens, batch.tokens):
        return None
    labels = {**batch.labels, "answer": pairs[claim, 0], "wrong": pairs[country, 1]}
    return replace(batch, tokens=tokens, labels=labels, counterfactual=None, control=None)


def _tokens(batch: Batch, name: str, example: int) -> list[int]:
    where = batch.positions[name][example]
    return [int(one) for one in batch.tokens[example, where[where >= 0]]]


def _stranger(batch: Batch, pairs: Tensor, other: Batch) -> Tensor:
    """[example] the next prompt whose answers are neither answers of this one nor mentioned in it or in the other; -1 for none."""
    theirs = torch.stack([other.answer, other.wrong], 1)
    told = [
        {*one[mask].tolist(), *two[mask].tolist(), *mine.tolist(), *new.tolist()}
        for one, two, mask, mine, new in zip(batch.tokens, other.tokens, batch.mask, pairs, theirs, strict=True)
    ]
    return another([pairs], lambda i, j: not told[i] & set(pairs[j].tolist()))
