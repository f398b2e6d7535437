"""Gates on a model whose heads were written: one gives the answer, one argues against it, the others write nothing."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas.apply.head_gates import (
    BY_SEED,
    FACILITATING,
    HELPS,
    HURTS,
    INTERFERING,
    IRRELEVANT,
    UNSEEN,
    GateOptions,
    HeadGates,
    head_gates,
)
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.prompts import Prompts
from headatlas.model import Model, attach
from headatlas.task import logit_difference
from tests import toys
from tests.methods.test_probing import texts

PAIR = {HeadId(0, 1), HeadId(1, 0)}
TURNED = HeadId(1, 2)


@functools.cache
def written() -> Model:
    """Heads whose value is a constant (a bias), which two write as the answer, and one as the wrong one, at less."""
    hf = toys.gpt2()
    with torch.no_grad():
        hf.transformer.wte.weight.mul_(5)  # the unembedding, too: answers differ by nats
        answer = hf.lm_head.weight[20] - hf.lm_head.weight[50]
        for layer, block in enumerate(hf.transformer.h):
            value = slice(64, 96)  # of the fused q, k, v, each 4 heads of 8
            block.attn.c_attn.weight[:, value] = 0
            block.attn.c_attn.bias[value] = 1
            block.attn.c_proj.weight.zero_()
            for head in range(4):
                size = 0.6 if HeadId(layer, head) in PAIR else -0.4 if HeadId(layer, head) == TURNED else 0.0
                block.attn.c_proj.weight[8 * head] = size * answer
    return attach(hf)


def prompts(first: int) -> Prompts:
    """Texts with one answer each, the same for all."""
    batch = texts(24).rows(slice(first, first + 12))
    labels = {**batch.labels, "answer": torch.full((12,), 20), "wrong": torch.full((12,), 50)}
    return Prompts(batch=replace(batch, labels=labels), metric=logit_difference)


@pytest.fixture(scope="module")
def found() -> HeadGates:
    options = GateOptions(steps=12, rate=1.0, seeds=2, draws=3)
    return head_gates(written(), prompts(0), prompts(12), options=options)


def test_roles_are_those_that_were_planted_in_every_seed(found):
    roles = dict(zip(found.heads, found.role, strict=True))
    assert {head for head, role in roles.items() if role == FACILITATING} == PAIR
    assert {head for head, role in roles.items() if role == INTERFERING} == {TURNED}
    assert {head for head, role in roles.items() if role == IRRELEVANT} == set(found.heads) - PAIR - {TURNED}


def test_the_heads_that_stay_open_suffice_and_random_ones_do_not(found):
    assert found.sufficient == [PAIR, PAIR]
    assert found.overlap == 1.0
    assert found.alone.min() > found.metric  # without the head that interferes it is better still
    assert found.random.max() < found.alone.min() - 1
    assert found.none < found.alone.min() - 1


def test_beside_the_gates_stands_what_each_head_does_alone(found):
    effect = dict(zip(found.heads, found.effect, strict=True))
    assert min(effect[head] for head in PAIR) > 0
    assert effect[TURNED] < 0
    others = [effect[head] for head in found.heads if head not in PAIR and head != TURNED]
    assert max(map(abs, others)) < 1e-4
    verdict = dict(zip(found.heads, found.verdict, strict=True))
    assert {head for head, one in verdict.items() if one == HELPS} == PAIR
    assert {head for head, one in verdict.items() if one == HURTS} == {TURNED}
    n = len(found.heads) - 3
    assert found.agreement == {
        FACILITATING: {HELPS: 2, HURTS: 0, UNSEEN: 0}, INTERFERING: {HELPS: 0, HURTS: 1, UNSEEN: 0},
        IRRELEVANT: {HELPS: 0, HURTS: 0, UNSEEN: n}, BY_SEED: {HELPS: 0, HURTS: 0, UNSEEN: 0},
    }  # fmt: skip
    rows = found.data["heads"]
    assert [row["head"] for row in rows] == [str(head) for head in found.heads]
    assert np.allclose([row["effect"] for row in rows], found.effect)


def test_random_sets_are_as_large_as_the_sufficient_one_also_where_it_has_most_heads():
    options = GateOptions(steps=1, rate=1e-3, seeds=1, draws=2)  # a step so small that nothing is learned
    found = head_gates(written(), prompts(0), prompts(12), options=options, seed=1)
    assert found.sufficient == [frozenset(found.heads)]
    assert np.allclose(found.random, found.alone)  # as many random heads are all of them, not those that are left: none
    assert found.none < found.metric - 1


def test_the_pressure_is_that_of_the_gates_logits_up_to_a_cut():
    """A gate that does nothing is moved by the pressure alone: past the cut it is left where it is."""
    few = head_gates(written(), prompts(0), prompts(12), options=GateOptions(steps=30, rate=0.3, seeds=1, draws=1))
    more = head_gates(written(), prompts(0), prompts(12), options=GateOptions(steps=60, rate=0.3, seeds=1, draws=1))
    idle = [i for i, head in enumerate(few.heads) if head not in PAIR and head != TURNED]
    for one in (few, more):
        assert one.opened[0, idle].min() > 0.98 > 0.02 > one.closed[0, idle].max()
    ends = np.log(more.opened[0, idle] / (1 - more.opened[0, idle]))
    assert ends.max() < 12  # 60 steps of 0.3 from 2 would be 20 without a cut


def test_what_differs_between_seeds_is_said():
    gates = HeadGates(
        (HeadId(0, 0), HeadId(0, 1)), np.array([[1.0, 0.9], [1.0, 0.9]]), np.array([[0.9, 0.1], [0.1, 0.8]]),
        np.zeros(2), np.ones(2), 1.0, np.zeros(2), np.zeros((2, 1)), 0.0,
    )  # fmt: skip
    assert gates.role == ["by seed", "by seed"]
    assert gates.overlap == 0.0
    with pytest.raises(BadInput):
        GateOptions(seeds=0)
