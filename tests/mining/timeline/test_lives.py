"""What lives of heads are made of numbers: hysteresis, intervals, roles, steps in names, heads matched by sketches."""

from __future__ import annotations

import numpy as np
import pytest

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.mining.timeline.lives import Series, alive, bar_of, drop_of, false_discovery, lives, role_changes
from headatlas.mining.timeline.matching import SIZE, aligned, moved
from headatlas.mining.timeline.sources import checkpoints_of, step_of
from headatlas.model.checkpoints import revisions_of

STEPS = (0, 10, 100, 1000, 10000)
A, B = HeadId(0, 0), HeadId(0, 1)


def series(means, spread=0.02, name="induction", kind="induction-head", n=16):
    """A detector with these mean scores [checkpoint][head] and a normal spread over examples; chance is 0."""
    means = np.array(means, float)
    noise = np.random.default_rng(1).normal(0, spread, (len(means), n, means.shape[1]))
    values = means[:, None] + noise
    return Series(name, kind, "repeated", 0.2, values, np.zeros_like(values))


def lived(one, drops=None):
    (q,) = false_discovery([one])
    return lives(one, q, bar_of([q]), (A, B), STEPS, drops or {})


def test_a_head_near_the_bar_is_not_born_again_and_again():
    q = np.array([[1.0], [0.001], [0.2], [0.001], [0.9]])
    above = np.array([[0.0], [0.4], [0.25], [0.4], [0.1]])
    assert alive(q, above, 0.2)[:, 0].tolist() == [False, True, True, True, False]


def test_births_deaths_and_second_lives():
    (first, second) = lived(series([[0, 0], [0, 0.9], [0, 0.9], [0, 0], [0, 0.9]]))
    assert (first.head, first.after, first.born, first.died) == (B, 0, 10, 1000)
    assert (second.after, second.born, second.died) == (1000, 10000, None)
    assert (first.low, first.high) == (0, 10)


def test_an_unsure_birth_has_a_wide_interval():
    # At step 100 half of the examples show it: draws of examples differ in whether the head passes there.
    values = series([[0, 0], [0, 0], [0.45, 0], [0.9, 0], [0.9, 0]], spread=0.01)
    split = values.values.copy()
    split[2, :, 0] = np.where(np.arange(16) % 2, 0.2, 0.75)
    (life,) = lived(Series("induction", "induction-head", "repeated", 0.2, split, values.control))
    assert life.born in (100, 1000)
    assert (life.low, life.high) == (10, 1000)


def test_a_drop_is_the_middle_of_the_way_and_none_where_nothing_got_better():
    rng = np.random.default_rng(0)
    losses = np.array([4.0, 4.0, 3.0, 1.0, 1.0])[:, None] + rng.normal(0, 0.05, (5, 16))
    drop = drop_of("repeated", "loss", -losses, STEPS)
    assert (drop.begins, drop.ends) == (10, 1000)
    assert drop_of("repeated", "loss", rng.normal(0, 1, (5, 16)) * 0.01 - 4.0 * np.ones((5, 16)), STEPS) is None
    early = series([[0, 0], [0.9, 0], [0.9, 0], [0.9, 0], [0.9, 0]])
    late = series([[0, 0], [0, 0], [0, 0], [0, 0], [0.9, 0]])
    assert lived(early, {"repeated": drop})[0].against_drop == "before"
    assert lived(late, {"repeated": drop})[0].against_drop == "after"


def test_a_head_that_is_something_else_later_changes_its_role():
    induction = lived(series([[0, 0], [0.9, 0.9], [0.9, 0.9], [0, 0.9], [0, 0.9]]))
    vector = lived(
        series([[0, 0], [0, 0], [0.9, 0], [0.9, 0.9], [0.9, 0.9]], name="function-vector", kind="function-vector-head")
    )
    told = [(one.head, one.before, one.how, one.to, one.step) for one in role_changes([*induction, *vector])]
    assert told == [
        (A, "induction-head", "becomes", "function-vector-head", 100),
        (B, "induction-head", "adds", "function-vector-head", 1000),
    ]


def test_names_tell_steps():
    told = {
        "step-0000100": 100,
        "checkpoint-500": 500,
        "step3000": 3000,
        "stage1-step1000-tokens5B": 1000,
        "main": None,
    }
    assert {name: step_of(name) for name in told} == told
    assert [(one.name, one.revision, one.step) for one in checkpoints_of("org/name@step20,step3")] == [
        ("org/name", "step3", 3), ("org/name", "step20", 20)]  # fmt: skip
    assert [one.step for one in checkpoints_of(["org/base", "org/tuned"])] == [0, 1]
    with pytest.raises(BadInput, match="do not tell their steps apart"):
        checkpoints_of("org/name@step1,step2,main")
    with pytest.raises(BadInput, match="names no revisions"):
        revisions_of("org/name@step1,")


def test_what_a_killed_training_left_half_written_is_no_checkpoint(tmp_path):
    for name in ("step-0000005", "step-0000010", ".step-0000010.half-77"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "config.json").write_text("{}")
    found = checkpoints_of(tmp_path)
    assert [(one.label, one.step, one.numbered) for one in found] == [
        ("step-0000005", 5, False), ("step-0000010", 10, False)]  # fmt: skip
    (tmp_path / "checkpoints" / "step-0000005").rename(tmp_path / "checkpoints" / "first")
    (tmp_path / "checkpoints" / "step-0000010").rename(tmp_path / "checkpoints" / "second")
    assert [(one.label, one.step, one.numbered) for one in checkpoints_of(tmp_path)] == [
        ("first", 0, True), ("second", 1, True)]  # fmt: skip


def test_sketches_tell_which_head_is_which():
    rng = np.random.default_rng(0)
    heads = (A, B, HeadId(1, 0), HeadId(1, 1))
    first = rng.normal(size=(4, SIZE))
    near = first + 0.3 * rng.normal(size=first.shape)
    assert moved(heads, first, near) == [0, 1, 2, 3]
    assert moved(heads, first, near[[1, 0, 2, 3]]) == [1, 0, 2, 3]
    assert moved(heads, first, near[[2, 1, 0, 3]]) == [0, 1, 2, 3]  # heads do not go to other layers
    assert moved(heads, first, rng.normal(size=first.shape)) == [0, 1, 2, 3]  # all changed: addresses hold
    assert moved(heads, first, np.full_like(first, np.nan)) == [0, 1, 2, 3]
    assert aligned(heads, [first, near[[1, 0, 2, 3]], near]) == [[0, 1, 2, 3], [1, 0, 2, 3], [0, 1, 2, 3]]
