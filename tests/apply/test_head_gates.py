"""Gates on a planted model: the pair that copies facilitates, a copier turned round interferes, what does nothing is irrelevant."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from headatlas.apply.head_gates import FACILITATING, INTERFERING, IRRELEVANT, GateOptions, HeadGates, head_gates
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.probe import probe
from headatlas.lab.spec import PlantSpec
from headatlas.methods.prompts import Prompts
from headatlas.model import attach
from headatlas.task import Batch, logit_difference

PAIR = {HeadId(0, 0), HeadId(1, 0)}
TURNED = HeadId(1, 2)


@functools.cache
def planted():
    """Two copying heads behind one previous-token head; what the second one writes is turned round, at half its size."""
    heads = (Head(0, 0, "previous"), Head(1, 0, "induction", strength=0.6), Head(1, 2, "induction", strength=0.6))
    made = plant(PlantSpec(heads), n_layers=2)
    weight = made.model.transformer.h[1].attn.c_proj.weight  # [in, out]
    width = weight.shape[0] // 4
    with torch.no_grad():
        weight[2 * width : 3 * width] *= -0.5
    return made, attach(made.model)


def repeats(seed: int) -> Prompts:
    """Repeated texts; the answer is the token that followed last time, the wrong one is some other."""
    made, _ = planted()
    tokens = torch.as_tensor(probe("repeated", made.words, 48, 16, seed).tokens)
    n, length = tokens.shape
    labels = {"answer": tokens[:, -1], "wrong": tokens[:, 1]}
    mask = torch.ones(n, length - 1, dtype=torch.bool)
    batch = Batch(tokens[:, :-1], mask, {"end": torch.full((n,), length - 2)}, labels=labels)
    return Prompts(batch=batch, metric=logit_difference)


@pytest.fixture(scope="module")
def found() -> HeadGates:
    _, model = planted()
    options = GateOptions(steps=16, rate=0.5, seeds=2, draws=2)
    return head_gates(model, repeats(0), repeats(1), options=options)


def test_roles_are_those_that_were_planted_in_every_seed(found):
    roles = dict(zip(found.heads, found.role, strict=True))
    assert {head for head, role in roles.items() if role == FACILITATING} == PAIR
    assert {head for head, role in roles.items() if role == INTERFERING} == {TURNED}
    assert {head for head, role in roles.items() if role == IRRELEVANT} == set(found.heads) - PAIR - {TURNED}


def test_the_heads_that_stay_open_suffice_and_random_ones_do_not(found):
    assert found.sufficient == [PAIR, PAIR]
    assert found.overlap == 1.0
    assert found.alone.min() > found.metric  # without the head that interferes it is better still
    assert found.random.max() < found.alone.min()
    assert found.none < found.alone.min() - 1


def test_beside_the_gates_stands_what_each_head_does_alone(found):
    effect = dict(zip(found.heads, found.effect, strict=True))
    assert min(effect[head] for head in PAIR) > 1
    assert effect[TURNED] < -0.1
    others = [effect[head] for head in found.heads if head not in PAIR and head != TURNED]
    assert max(map(abs, others)) < 0.3
    rows = found.data["heads"]
    assert [row["head"] for row in rows] == [str(head) for head in found.heads]
    assert np.allclose([row["effect"] for row in rows], found.effect)


def test_what_differs_between_seeds_is_said():
    gates = HeadGates(
        (HeadId(0, 0), HeadId(0, 1)), np.array([[1.0, 0.9], [1.0, 0.9]]), np.array([[0.9, 0.1], [0.1, 0.8]]),
        np.zeros(2), 1.0, np.zeros(2), np.zeros((2, 1)), 0.0,
    )  # fmt: skip
    assert gates.role == ["by seed", "by seed"]
    assert gates.overlap == 0.0
    with pytest.raises(BadInput):
        GateOptions(seeds=0)
