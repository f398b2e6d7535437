"""Statistics against closed forms and scipy."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from headatlas.heads import HeadId
from headatlas.ops import stats
from headatlas.scores import HeadScores


def test_the_interval_of_many_examples_is_that_of_the_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(2.0, 1.0, (200, 3))
    low, high = stats.interval(values)
    error = values.std(0, ddof=1) / np.sqrt(200)
    np.testing.assert_allclose(low, values.mean(0) - 1.96 * error, atol=0.04)
    np.testing.assert_allclose(high, values.mean(0) + 1.96 * error, atol=0.04)


def test_one_example_that_stands_apart_gives_no_boundless_interval():
    for n in (8, 16, 32):
        values = -0.94 + 0.002 * np.random.default_rng(n).normal(size=(n, 1))
        values[0] = -0.5
        low, high = stats.interval(values)
        assert -1.2 < low[0] < values.mean() < high[0] < 0


def test_intervals_cover_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    low, high = stats.interval(rng.exponential(1.0, (40, 500)))
    assert 0.88 < np.mean((low <= 1.0) & (high >= 1.0)) < 0.98


def test_missing_examples_are_left_out():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(stats.mean(values), [2.0, np.nan])
    low, high = stats.interval(values)
    assert low[0] < 2.0 < high[0]
    assert np.isnan([low[1], high[1]]).all()


def test_paired_p_equals_scipys():
    rng = np.random.default_rng(2)
    values, control = rng.normal(0.3, 1, (20, 4)), rng.normal(0, 1, (20, 4))
    expected = scipy_stats.ttest_rel(values, control, alternative="greater").pvalue
    np.testing.assert_allclose(stats.paired_p(values, control), expected, rtol=1e-10)


def test_paired_p_of_constant_differences():
    values = np.tile([1.0, 0.0, 0.5], (5, 1))
    np.testing.assert_array_equal(stats.paired_p(values, np.full((5, 3), 0.5)), [0.0, 1.0, 1.0])
    assert np.isnan(stats.paired_p(values[:2], values[:2])).all()


def test_false_discovery_rate_is_kept_on_pure_noise():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, (16, 5000))
    q = stats.false_discovery(stats.paired_p(noise, np.zeros_like(noise)))
    assert (q < 0.01).mean() < 0.001
    assert np.isnan(stats.false_discovery(np.array([np.nan, 0.01])))[0]


def test_observed_asks_for_both_certainty_and_size():
    rng = np.random.default_rng(4)
    heads = tuple(HeadId(0, i) for i in range(3))
    values = np.stack([rng.normal(mean, 0.02, 30) for mean in (0.6, 0.15, 0.6)], 1)
    control = np.stack([rng.normal(0.1, 0.02, 30), rng.normal(0.1, 0.02, 30), rng.normal(0.58, 0.3, 30)], 1)
    found = HeadScores(heads, values, control).observed(0.2)
    assert [line.head for line in found] == [HeadId(0, 0)]


def test_grid_leaves_holes_for_heads_that_do_not_exist():
    heads = (HeadId(0, 0), HeadId(2, 1), HeadId(0, 0, "encoder"))
    scores = HeadScores(heads, np.array([[0.5, 0.7, 0.9]]), np.zeros((1, 3)))
    expected = np.full((3, 2), np.nan)
    expected[0, 0], expected[2, 1] = 0.5, 0.7
    np.testing.assert_array_equal(scores.grid(), expected)


@pytest.mark.parametrize("text", ["9.6", "L9H6", "l9h6", " 9.6 ", "decoder:9.6"])
def test_heads_are_read_in_the_ways_people_write_them(text: str):
    assert HeadId.parse(text) == HeadId(9, 6, "decoder")


@pytest.mark.parametrize("text", ["9", "9.6.1", "a.b", "", "-1.2", "9,6"])
def test_what_is_no_head_is_refused(text: str):
    from headatlas.errors import BadInput

    with pytest.raises(BadInput, match="is not a head"):
        HeadId.parse(text)
