"""Comparisons of models whose heads were written: what was taken out is lost, what was put in is gained, noise is nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

import headatlas as ha
from headatlas.heads import HeadId
from headatlas.lab.grid import model_of
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.spec import PlantSpec
from headatlas.mining.comparison.changes import LEVEL, changed_p, compare_runs
from headatlas.mining.comparison.runs import FinishedRun, Measurement

DETECTORS = ["induction", "previous-token", "duplicate-token", "positional"]
BASE = (Head(0, 1, "previous"), Head(1, 0, "induction"), Head(1, 3, "positional", offset=5))
SAID = {"induction": "induction", "previous": "previous-token", "positional": "positional"}


def planted(*heads: Head, seed: int = 0, noise: float = 0.03) -> ha.Model:
    return model_of(plant(PlantSpec(heads, noise=noise), n_layers=3, context=160, seed=seed))


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Mines planted heads; each set of heads once."""
    known: dict[tuple, Path] = {}

    def run(*heads: Head, seed: int = 0, noise: float = 0.03, names: Iterable[str] = DETECTORS, n: int = 12) -> Path:
        key = (heads, seed, noise, tuple(names), n)
        if key not in known:
            out = tmp_path_factory.mktemp("run") / "run"
            known[key] = ha.mine(planted(*heads, seed=seed, noise=noise), list(names), n=n, verdict=False, out=out).run
        return known[key]

    return run


def said(found: ha.Comparison) -> set[tuple[str, str, str]]:
    return {(str(row.head), row.detector, row.outcome) for row in found.changes}


def test_a_run_against_itself_finds_nothing(mined):
    found = ha.compare(mined(*BASE), mined(*BASE))
    assert (found.changes, found.heads, found.other_verdicts) == ((), (), ())
    assert found.data["tests"] == 12 * len(DETECTORS)
    assert all(row.change == 0 for row in found.rows)


def test_a_head_that_was_removed_is_lost_and_seen_from_the_other_side_gained(mined):
    one, other = mined(*BASE), mined(*BASE[:1], BASE[2])
    lost = ha.compare(one, other)
    assert said(lost) == {("1.0", "induction", "lost")}
    (row,) = lost.changes
    assert row.low <= row.change <= row.high < -0.5
    assert row.q < LEVEL
    gained = ha.compare(other, one)
    assert said(gained) == {("1.0", "induction", "gained")}
    assert gained.changes[0].change == pytest.approx(-row.change)
    assert gained.heads == (HeadId(1, 0),)


def test_a_head_that_attends_less_is_weakened_and_one_that_moved_is_lost_and_gained(mined):
    half = dataclasses.replace(BASE[2], strength=0.5)
    weaker = ha.compare(mined(*BASE), mined(*BASE[:2], half))
    assert said(weaker) == {("1.3", "positional", "weakened")}
    assert said(ha.compare(mined(*BASE[:2], half), mined(*BASE))) == {("1.3", "positional", "strengthened")}
    moved = dataclasses.replace(BASE[1], layer=2, head=2)
    assert said(ha.compare(mined(*BASE), mined(BASE[0], moved, BASE[2]))) == {
        ("1.0", "induction", "lost"), ("2.2", "induction", "gained"),
    }  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
def test_models_of_noise_heads_do_not_differ_in_heads(mined, seed):
    assert ha.compare(mined(), mined(seed=seed)).changes == ()


def test_weights_with_a_little_noise_keep_their_heads(mined):
    assert ha.compare(mined(*BASE), mined(*BASE, noise=0.04)).changes == ()


def test_two_models_are_mined_alike_and_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b = planted(*BASE), planted(*BASE[:1], BASE[2])
    found = ha.compare(a, b, ["induction"], n=8, seed=3, verdict=False)
    assert said(found) == {("1.0", "induction", "lost")}
    assert (found.data["n"], found.data["seed"]) == (8, 3)
    assert ha.compare(a, a, ["induction"], n=8, seed=3, verdict=False).changes == ()


def test_only_the_named_detectors_count(mined):
    found = ha.compare(mined(*BASE), mined(), ["previous-token"])
    assert {row.detector for row in found.rows} == {"previous-token"}
    assert said(found) == {("0.1", "previous-token", "lost")}


def test_examples_are_paired(mined):
    """A twin by hand: differences example by example, a t-test each way, Benjamini-Hochberg over all of them."""
    from scipy import stats

    a, b = (FinishedRun.of(ha.Atlas(folder)) for folder in (mined(*BASE), mined(*BASE[:2])))
    found = compare_runs(a, b, ["positional"])
    one, two = a.measured["positional"], b.measured["positional"]
    expected = []
    for h in range(len(one.heads)):
        sides = []
        for sign in (1, -1):
            moved = [sign * (two.values - one.values)[:, h],
                     sign * ((two.values - two.control) - (one.values - one.control))[:, h]]  # fmt: skip
            sides.append(
                max(
                    stats.ttest_1samp(d, one.minimum_effect, alternative="greater", nan_policy="omit").pvalue
                    for d in moved
                )
            )
        expected.append(min(1.0, 2 * min(sides)))
    moved = (two.values - two.control) - (one.values - one.control)
    ends = stats.ttest_1samp(moved, 0, nan_policy="omit").confidence_interval(0.95)
    for told, end in zip(([row.low for row in found.rows], [row.high for row in found.rows]), ends, strict=True):
        assert told == pytest.approx(list(np.ma.getdata(end)), abs=1e-9, nan_ok=True)
    assert [row.p for row in found.rows] == pytest.approx(expected, rel=1e-6)
    assert [row.q for row in found.rows] == pytest.approx(stats.false_discovery_control(expected), rel=1e-6)


def test_no_more_than_the_asked_share_of_changes_is_false_at_the_minimum_effect():
    """On the border of the null hypothesis, where a change is just the minimum effect, p < 0.05 in 5% of heads at most."""
    rng = np.random.default_rng(0)
    heads = tuple(HeadId(i // 100, i % 100) for i in range(4000))
    control = rng.normal(0, 0.05, (16, 4000))
    before = Measurement("x", "x", "x", 0.1, heads, rng.normal(0.5, 0.1, control.shape), control, {})
    after = dataclasses.replace(before, values=before.values + 0.1 + rng.normal(0, 0.1, control.shape))
    share = float((changed_p(before, after) < 0.05).mean())
    assert 0.01 < share < 0.035  # two-sided: half of 5% on this side
    chance = dataclasses.replace(before, control=before.control - 0.4)  # chance alone moved
    assert changed_p(before, chance).min() == 1.0
