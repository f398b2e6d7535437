"""95% intervals of means: how often they hold the truth, and when there is none."""

import numpy as np
import pytest

from headatlas.ops import stats

MEANS = 2000  # a share of 0.95 of them is known to 0.005


def coverage(values: np.ndarray, truth: float) -> float:
    low, high = stats.interval(values)
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("n", [4, 8, 16, 32])
def test_intervals_of_normal_effects_hold_the_truth_as_often_as_they_say(n: int):
    values = np.random.default_rng(n).normal(0.3, 2.0, (n, MEANS))
    assert 0.93 <= coverage(values, 0.3) <= 0.97


@pytest.mark.parametrize(("n", "least"), [(8, 0.87), (16, 0.89), (32, 0.90), (64, 0.92)])
def test_intervals_of_skewed_effects_say_what_the_page_says(n: int, least: float):
    values = np.random.default_rng(n).lognormal(0.0, 1.0, (n, MEANS))
    assert least <= coverage(values, np.exp(0.5)) <= 0.97


def test_intervals_turn_with_the_sign_and_scale_with_the_unit():
    values = np.random.default_rng(0).lognormal(0.0, 1.0, (20, 50))
    low, high = stats.interval(values)
    turned = stats.interval(-3.0 * values)
    np.testing.assert_allclose(turned[1], -3.0 * low, rtol=0.15)
    np.testing.assert_allclose(turned[0], -3.0 * high, rtol=0.15)
    assert (low < values.mean(0)).all()
    assert (values.mean(0) < high).all()


def test_one_number_is_its_own_interval_and_one_example_has_none():
    low, high = stats.interval(np.full((12, 2), 0.25))
    np.testing.assert_array_equal([low, high], np.full((2, 2), 0.25))
    assert np.isnan(stats.interval(np.array([[1.0]]))).all()


def test_missing_examples_change_nothing():
    values = np.random.default_rng(1).normal(0, 1, (12, 30))
    with_gaps = np.full((15, 30), np.nan)
    with_gaps[[0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14]] = values
    for whole, rest in zip(stats.interval(values), stats.interval(with_gaps), strict=True):
        np.testing.assert_allclose(whole, rest, rtol=0.2, atol=0.1)


def test_too_few_events_are_one_to_four_examples_apart_from_the_rest():
    def few(*values: float) -> bool:
        return bool(stats.too_few_events(np.array(values)[:, None])[0])

    nothing = [0.0] * 12
    assert not few(*nothing)  # nothing ever happens: that is known
    assert few(*nothing, 1.0)
    assert few(*nothing, 1.0, 2.0, 3.0, -4.0)
    assert few(*nothing, 7.0, 7.0, 7.0, 7.0)
    assert not few(*nothing, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert not few(1.0, 2.0, 3.0, 4.0)  # there is no rest
    assert few(1.0, 1.0 + 1e-12, 2.0)
    assert few(*nothing, np.nan, 1.0)
    assert few(*[2.0] * 9, 1.0)


def test_few_events_do_not_make_an_interval_infinite():
    values = np.zeros((32, 1))
    values[:2] = 0.5
    low, high = stats.interval(values)
    assert -0.1 < low[0] < 0.03 < high[0] < 0.2


def test_intervals_of_shares_stay_within_nought_and_one():
    from scipy import stats as scipy_stats

    some = np.array([1.0, 1.0, 0.0, 1.0])
    expected = scipy_stats.binomtest(3, 4).proportion_ci(method="wilson")
    assert stats.interval_of(some, "share") == (expected.low, expected.high)
    assert stats.interval_of(np.append(some, np.nan), "share") == (expected.low, expected.high)
    low, high = stats.interval_of(np.zeros(4), "share")
    assert low == 0
    assert 0.4 < high < 0.6  # four of four wrong: half of all may yet be right
    assert stats.interval_of(np.array([0.9, 0.1, 0.95]), "share") == (0.0, 1.0)
    wide = stats.interval_of(np.array([0.9, 0.1, 0.95]))
    assert wide[0] < 0 < 1 < wide[1]
