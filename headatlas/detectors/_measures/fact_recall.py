"""Factual recall: direct effects of heads on the object's logit by way of the subject's tokens and of the relation's.

Chughtai et al. 2024: a head's direct effect at the last token is a sum over the tokens it attends to (direct logit
attribution by source token). Subject heads raise attributes of the subject, relation heads raise whatever could answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.methods.direct_logit_attribution import DirectEffects, Toward, effects_along
from headatlas.methods.sweeps.set_ablation import another
from headatlas.model import Model
from headatlas.ops.memo import once
from headatlas.ops.types import Array
from headatlas.task import Batch

FACTOR = 10.0  # by which the effect through one source must exceed that through the other for a head to belong to it


class Recall(NamedTuple):
    """Shares of the object's logit, [example, head]; the others are what counts as chance.

    subject, relation: direct effect on the object by way of the tokens of either. other_subject: the same by way of the subject's
    tokens on an object of the same relation that belongs to somebody else. other_relation: by way of the relation's tokens on
    an answer to another relation; NaN where the batch has none.
    """

    subject: Array
    relation: Array
    other_subject: Array
    other_relation: Array

    @property
    def source(self) -> NDArray[np.str_]:
        """[head] "subject" or "relation" where the mean effect by way of its tokens is FACTOR times the other in size, else "mixed"."""
        subject, relation = np.abs(self.subject.mean(0)), np.abs(self.relation.mean(0))
        rest = np.where(relation >= FACTOR * subject, "relation", "mixed")
        return np.where((subject >= FACTOR * relation) & (subject > 0), "subject", rest)


def recall(model: Model, batch: Batch) -> Recall:
    """The direct effects on a batch of the task `facts` by source, computed once for a batch.

    Logits are taken relative to the mean over all objects of the batch, so that what raises every word alike does not count,
    and are divided by the mean size of the object's logit so taken.
    """
    return once(model, batch, "recall of facts", lambda: _recall(model, batch))


def _recall(model: Model, batch: Batch) -> Recall:
    right, wrong = batch.answer.reshape(len(batch), -1)[:, 0], batch.wrong.reshape(len(batch), -1)[:, 0]
    everything = torch.cat([right, wrong]).unique()
    unrelated = unrelated_prompt(batch)

    baseline = everything.expand(len(batch), -1)
    weights = torch.cat([torch.ones(len(batch), 1), torch.full(baseline.shape, -1.0 / len(everything))], 1)
    asked = (right, wrong, torch.where(unrelated < 0, right, right[unrelated]))
    ends = batch.positions["end"].reshape(-1)
    towards = [Toward(ends, torch.cat([ids[:, None], baseline], 1), weights) for ids in asked]
    own, same_relation, other = effects_along(model, batch, towards, by_source=True)

    def through(found: DirectEffects, source: str) -> Array:
        assert found.by_source is not None
        return _by_way_of(found.by_source, batch.positions[source])

    subject, relation, total = through(own, "subject"), through(own, "relation"), own.total
    other_subject, other_relation = through(same_relation, "subject"), through(other, "relation")
    other_relation[(unrelated < 0).numpy()] = np.nan
    unit = float(np.abs(total).mean())
    return Recall(subject / unit, relation / unit, other_subject / unit, other_relation / unit)


def unrelated_prompt(batch: Batch) -> Tensor:
    """[example] the next example with another relation and another answer; -1 where there is none."""
    relation, answer = batch.labels["relation"], batch.answer.reshape(len(batch), -1)[:, 0]
    return another([relation], lambda i, j: bool(relation[i] != relation[j]) and bool(answer[i] != answer[j]))


def among_relations(batch: Batch) -> Batch:
    """The same prompts, with the answers to all other relations of the batch in the place of the wrong answer.

    The logit difference then says how far the model answers the relation at all, right or not. Raises BadInput where the
    batch has one relation.
    """
    relation, answer = batch.labels["relation"], batch.answer.reshape(len(batch), -1)[:, 0]
    rivals = [
        answer[(relation != own) & (answer != right)].unique() for own, right in zip(relation, answer, strict=True)
    ]
    if min(len(one) for one in rivals) == 0:
        raise BadInput("These facts have one relation, so there are no answers to others.", "Use more prompts.")
    width = max(len(one) for one in rivals)
    wrong = torch.stack([torch.nn.functional.pad(one, (0, width - len(one)), value=-1) for one in rivals])
    return Batch(batch.tokens, batch.mask, batch.positions, batch.marks, {**batch.labels, "wrong": wrong}, batch.facts)


def _by_way_of(by_source: Array, places: Tensor) -> Array:
    """[example, head] the part of [example, head, key] that comes from places [example, k], -1 for none."""
    wanted = torch.zeros(len(places), by_source.shape[-1], dtype=torch.bool)
    example, slot = (places >= 0).nonzero(as_tuple=True)
    wanted[example, places[example, slot]] = True
    found: Array = np.einsum("ehk,ek->eh", by_source, wanted.numpy().astype(np.float64))
    return found
