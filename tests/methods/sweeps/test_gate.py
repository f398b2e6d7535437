"""The gate: a model is able only where its answers follow the question, not where it always says the same."""

import numpy as np
import pytest

from headatlas.errors import BadInput
from headatlas.methods.sweeps.task_gate import SKILL, gate_of_values
from headatlas.task import find_task

VOCABULARY = 100


def test_a_constant_answer_is_not_ability():
    task = find_task("yes-no")
    always_yes = np.array([3.0, -3.0] * 16)
    gate = gate_of_values(task, always_yes, always_yes.copy(), VOCABULARY)
    assert (gate.accuracy, gate.chance, gate.able) == (0.5, 0.5, False)
    follows = gate_of_values(task, np.full(32, 2.0), always_yes, VOCABULARY)
    assert (follows.accuracy, follows.able) == (1.0, True)
    assert follows.smallest == pytest.approx(0.02)


def test_a_better_metric_without_better_answers_is_not_ability():
    task = find_task("capitals")
    rng = np.random.default_rng(0)
    floor = rng.normal(-5, 0.1, 64)
    value = np.where(np.arange(64) < 64 * (SKILL - 0.1), 1.0, -1.0)  # far above the floor, and mostly wrong
    gate = gate_of_values(task, value, floor, VOCABULARY)
    assert gate.better > task.margin
    assert gate.low > 0
    assert not gate.able
    value = np.where(np.arange(64) < 64 * (SKILL + 0.1), 1.0, -1.0)
    assert gate_of_values(task, value, floor, VOCABULARY).able


def test_losses_compare_no_answers_and_keep_their_own_floor():
    gate = gate_of_values(find_task("registers"), np.full(8, 3.0), None, VOCABULARY)
    assert gate.floor == pytest.approx(np.log(VOCABULARY))
    assert gate.accuracy is None
    assert gate.able
    assert gate.baseline["value"] == 3.0
    with pytest.raises(BadInput, match="no control batch"):
        gate_of_values(find_task("prose"), np.full(8, 3.0), None, VOCABULARY)
