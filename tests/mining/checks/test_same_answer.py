"""The same-answer control: who gives to whom, what swaps do, and whom it calls a carrier of the answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import headatlas as ha
from headatlas.heads import HeadId, parse_heads
from headatlas.mining.checks.records import HeadVerdict, RemovalEffect
from headatlas.mining.checks.same_answer import SameAnswer, compared, donors
from headatlas.model import Model
from headatlas.task import Batch, find_task
from tests.mining import echo
from tests.mining.checks.plain import logit_difference, replaced, z_of


def test_prompts_with_the_same_answer_and_with_another_are_alike_in_all_else():
    n = 60
    rng = np.random.default_rng(0)
    labels = {"answer": torch.tensor(rng.integers(5, size=n)), "template": torch.tensor(rng.integers(3, size=n))}
    tokens = torch.arange(n)[:, None].expand(n, 4).clone()
    tokens[1] = tokens[0]  # the same prompt again is no other prompt
    labels["answer"][1] = labels["answer"][0]
    pool = Batch(tokens, torch.ones(n, 4, dtype=torch.bool), {}, {}, {**labels, "wrong": labels["answer"] + 5})
    rows, same, other = donors(pool, 20).T
    assert len(rows) == 20
    assert torch.equal(labels["answer"][rows], labels["answer"][same])
    assert bool((labels["answer"][rows] != labels["answer"][other]).all())
    assert bool((pool.tokens[rows] != pool.tokens[same]).any(1).all())
    assert torch.equal(labels["template"][same], labels["template"][other])


def test_swaps_are_those_of_the_plain_model(model: Model):
    control = SameAnswer(model, echo.echo, echo.echo.metric, seed=5)
    assert control.reason == ""
    head = HeadId(1, 1)
    rows, same, other = control._donors
    batch, at = control._pool.rows(rows), control._pool.positions["end"]
    for way, source in zip(control._swaps, (same, other), strict=True):
        taken = z_of(model, head, control._pool.rows(source))[torch.arange(len(rows)), at[source]]

        def put(z: Tensor, taken: Tensor = taken) -> Tensor:
            new = z.clone()
            new[torch.arange(len(rows)), at[rows]] = taken
            return new

        clean = logit_difference(model, batch)
        with replaced(model, head, put):
            expected = clean - logit_difference(model, batch)
        assert np.allclose(way.metric_drop([head]), expected, atol=1e-4)


def test_a_head_that_keeps_the_run_on_its_course_is_told_from_one_that_carries_the_answer():
    """Two heads of the last layer see the same mean of the text and write it with opposite signs, so large that without one
    of them the final norm drowns the answer: both matter, and neither has anything to do with the answer."""
    model = echo.model()
    attention = model.hf.model.layers[2].self_attn
    with torch.no_grad():
        query = attention.q_proj.weight.view(echo.HEADS, echo.HEAD, echo.WIDTH)
        output = attention.o_proj.weight.view(echo.WIDTH, echo.HEADS, echo.HEAD)
        query[:2] = 0.0
        output[:, 0] *= 200
        output[:, 1] = -output[:, 0]
    found = SameAnswer(model, echo.echo, echo.echo.metric, seed=5).check([HeadId(0, 0), HeadId(2, 0), HeadId(2, 1)])
    assert {str(head): one.outcome for head, one in found.items()} == {
        "0.0": "passed",
        "2.0": "failed",
        "2.1": "failed",
    }
    judged = HeadVerdict(RemovalEffect(1.0, 0.9, 1.1), verdict="causal", checks=(found[HeadId(2, 0)],))
    assert judged.carries == "trajectory"
    assert replace(judged, verdict="refuted").carries == "", "it does nothing that could be a course"
    assert replace(judged, checks=(found[HeadId(0, 0)],)).carries == ""


@pytest.mark.parametrize(
    ("same", "other", "outcome"),
    [(0.1, 2.0, "passed"), (1.9, 2.0, "failed"), (-1.9, 2.0, "failed"), (1.0, 2.0, "weakened"), (0.0, -2.0, "passed"),
     (-1.9, -2.0, "failed"), (1.0, 0.0, "does not apply")],
)  # fmt: skip
def test_the_same_answer_must_change_less_than_half(same: float, other: float, outcome: str):
    noise = np.random.default_rng(0).normal(size=(2, 24))
    noise -= noise.mean(1, keepdims=True)
    found = compared(same + 0.4 * noise[0], other + 0.4 * noise[1], 1.0)
    assert found.outcome == outcome
    if outcome != "does not apply":
        assert found.low <= found.value <= found.high
        assert found.value == pytest.approx(same / other)


def test_the_control_is_right_about_intervals():
    """Of heads that change exactly half as much, at most 5% pass and at most 5% fail: the boundary is the null."""
    rng = np.random.default_rng(1)
    outcomes = [compared(1 + rng.normal(size=24), 2 + rng.normal(size=24), 1.0).outcome for _ in range(200)]
    assert outcomes.count("passed") <= 14
    assert outcomes.count("failed") <= 14


@pytest.mark.slow
def test_heads_of_a_real_model_that_say_whom_not_to_name_carry_no_answer():
    """S-inhibition heads of SmolLM2 on IOI: another prompt with the same answer has another subject to inhibit."""
    real, task = ha.load("smollm2-135m"), find_task("ioi")
    found = SameAnswer(real, task, task.metric, seed=1).check(parse_heads("20.0 19.2"))
    for one in found.values():
        assert one.outcome in ("failed", "weakened"), "which, is up to the prompts drawn"
        assert one.value > 0.5
