"""A scan goes on with as many examples again for detectors by which a head is close to being observed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

import headatlas as ha
from headatlas.detector import detectors
from headatlas.heads import HeadId
from headatlas.mining import plan
from headatlas.mining.planning import further
from headatlas.mining.scan import scan, scan_task
from headatlas.scores import HeadScores
from headatlas.task import Batch, Task
from tests import toys

N = 8


@pytest.fixture(scope="module")
def model() -> ha.Model:
    return toys.model("gqa")


def stacked(first: Batch, second: Batch) -> Batch:
    """The rows of both, of batches that are as long."""
    control = None
    if first.control is not None and second.control is not None:
        control = stacked(first.control, second.control)
    rows = {name: torch.cat([getattr(first, name), getattr(second, name)]) for name in ("tokens", "mask")}
    places = {name: torch.cat([first.positions[name], second.positions[name]]) for name in first.positions}
    labels = {name: torch.cat([first.labels[name], second.labels[name]]) for name in first.labels}
    return dataclasses.replace(first, **rows, positions=places, labels=labels, control=control)


def test_a_head_is_unclear_where_twice_the_examples_would_show_it():
    generator = np.random.default_rng(0)
    values = generator.normal(np.linspace(0, 1.2, 40), 1.0, (12, 40))
    scores = HeadScores(tuple(HeadId(0, i) for i in range(40)), values, np.zeros_like(values))
    t = values.mean(0) / (values.std(0, ddof=1) / np.sqrt(12))
    later = stats.false_discovery_control(stats.t.sf(np.sqrt(2) * t, 23))
    now = stats.false_discovery_control(stats.t.sf(t, 11))
    expected = {HeadId(0, i) for i in range(40) if later[i] < 0.01 <= now[i]}
    assert set(scores.unclear) == expected
    assert expected
    assert expected.isdisjoint(line.head for line in scores.observed())


def test_no_head_is_unclear_that_is_sure_or_nowhere_near_or_undefined():
    values = np.stack([np.ones(8), np.zeros(8), np.full(8, np.nan), np.r_[1.0, np.full(7, np.nan)]], 1)
    assert HeadScores(tuple(HeadId(0, i) for i in range(4)), values, np.zeros_like(values)).unclear == ()


def test_further_examples_are_others_and_always_the_same(model):
    for task, batch in plan(model, None, None, N, 3).batches.items():
        more = further(task, model.tokenizer, batch, 3)
        again = further(task, model.tokenizer, batch, 3)
        assert (more is None) == (again is None)
        if more is None or again is None:
            continue
        assert 4 <= len(more) <= len(batch)
        assert more.tokens.equal(again.tokens)
        seen = {tuple(row[kept].tolist()) for row, kept in zip(batch.tokens, batch.mask, strict=True)}
        assert seen.isdisjoint(tuple(row[kept].tolist()) for row, kept in zip(more.tokens, more.mask, strict=True))


def test_a_task_without_further_examples_gives_none(model):
    repeated = detectors()["induction"].task
    batch = repeated(model.tokenizer, N, 0)
    few = Task(**{**vars(repeated), "build": lambda *_: batch.rows(slice(0, N))})
    assert further(few, model.tokenizer, batch, 0) is None


@pytest.mark.parametrize("close", [True, False])
def test_a_scan_on_both_is_the_scan_of_all(model, monkeypatch, close):
    """Also of a detector that settles on one of its choices over all examples (`positional`)."""
    task = detectors()["positional"].task
    group = [one for one in detectors().values() if one.task == task]
    batch = task(model.tokenizer, N, 0)
    more = further(task, model.tokenizer, batch, 0)
    assert more is not None
    asked = {"positional", "induction"} if close else set()
    monkeypatch.setattr(HeadScores, "unclear", property(lambda scores: scores.heads if close else ()))
    found = scan_task(model, task, group, batch, further=lambda: more)
    whole = scan(model, group, stacked(batch, more), metric=task.metric, size=3)
    first = scan(model, group, batch, metric=task.metric, size=3)
    for one in found.detectors:
        expected = (whole if close else first).scores[one.name]
        np.testing.assert_allclose(one.values, expected.values, atol=1e-6)
        np.testing.assert_allclose(one.control, expected.control, atol=1e-6)
        assert one.told == (whole if close else first).told.get(one.name, {})
    assert asked <= set(found.observed)
    assert found.baseline == scan_task(model, task, group, batch).baseline


def test_no_further_examples_are_drawn_where_all_is_clear(model, monkeypatch):
    task = detectors()["induction"].task
    monkeypatch.setattr(HeadScores, "unclear", ())
    scan_task(
        model, task, [detectors()["induction"]], task(model.tokenizer, N, 0), further=lambda: pytest.fail("drawn")
    )


def test_a_run_tells_how_many_examples_each_detector_was_asked_on_and_is_compared_on_those_that_both_have(
    model, monkeypatch, tmp_path: Path
):
    few = ha.mine(model, ["induction", "previous-token"], n=N, verdict=False, out=tmp_path / "few")
    original = HeadScores.unclear.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(HeadScores, "unclear", property(lambda scores: scores.heads))
    many = ha.mine(model, ["induction", "previous-token"], n=N, verdict=False, out=tmp_path / "many")
    monkeypatch.setattr(HeadScores, "unclear", property(original))
    assert {one["n_examples"] for one in many.data["detectors"]} == {2 * N}
    table = pq.read_table(many.run / "examples.parquet")
    assert pc.max(table["example"]).as_py() == 2 * N - 1
    assert {one["n_examples"] for one in few.data["detectors"]} == {N}
    assert ha.compare(few, many).changes == ()
    assert ha.compare(many, few).changes == ()
    assert '"n_at_most": 16' in (few.run / "run.json").read_text()
