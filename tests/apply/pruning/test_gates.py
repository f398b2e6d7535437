"""Hard-concrete gates: the distribution that the formulas state, and what training makes of gates on a loss that is known."""

from __future__ import annotations

import math

import pytest
import torch

from headatlas.apply.pruning.gates import HIGH, LOW, TEMPERATURE, l0_gates, open_probability, sampled, settled
from headatlas.progress import Silent
from headatlas.task import next_token_loss
from tests.apply.pruning.models import attached, batch


def test_the_constants_are_those_of_the_paper():
    assert (TEMPERATURE, LOW, HIGH) == (0.33, -0.1, 1.1)
    assert float(open_probability(torch.tensor(0.0))) == pytest.approx(0.688, abs=5e-4)


@pytest.mark.parametrize("log_alpha", [-3.0, -0.7, 0.0, 0.4, 2.0])
def test_the_probability_of_an_open_gate_is_the_share_of_noise_that_opens_it(log_alpha: float):
    noise = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    gates = sampled(torch.full_like(noise, log_alpha), noise)
    share = float((gates > 0).double().mean())
    assert float(open_probability(torch.tensor(log_alpha))) == pytest.approx(share, abs=2e-5)
    assert float(gates.min()) >= 0
    assert float(gates.max()) <= 1


def test_a_gate_is_what_the_formula_says_and_rises_as_finite_differences_do():
    log_alpha, u = 0.6, 0.3

    def by_hand(value: float) -> float:
        s = 1 / (1 + math.exp(-(math.log(u) - math.log(1 - u) + value) / 0.33))
        return min(1.0, max(0.0, s * 1.2 - 0.1))

    x = torch.tensor([log_alpha], dtype=torch.float64, requires_grad=True)
    gate = sampled(x, torch.tensor([u], dtype=torch.float64))
    assert float(gate.detach()) == pytest.approx(by_hand(log_alpha), abs=1e-12)
    gate.sum().backward()
    assert float(x.grad) == pytest.approx((by_hand(log_alpha + 1e-6) - by_hand(log_alpha - 1e-6)) / 2e-6, rel=1e-6)


def test_without_noise_a_gate_knows_no_temperature():
    x = torch.tensor([-2.4, 0.0, 2.4])  # sigmoid beyond 1/12 and 11/12: clipped
    assert settled(x).tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_noise_of_0_and_1_gives_gates_and_not_nan():
    assert sampled(torch.zeros(2), torch.tensor([0.0, 1.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("penalty", "n_open"), [(30.0, 0), (1e-9, 12)])
def test_a_penalty_decides_how_many_gates_stay_open(penalty: float, n_open: int):
    found = l0_gates(
        attached("llama"), batch(), next_token_loss, penalty=penalty, steps=15, rate=0.5 if n_open == 0 else 0.01, seed=0,
        progress=Silent(),
    )  # fmt: skip
    assert len(found.open) == n_open
    assert len(found.metric) == 15
    assert found.data["exactly_closed"] == 12 - n_open
