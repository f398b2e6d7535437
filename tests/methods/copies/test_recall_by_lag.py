"""Attention by lag and CMR: curves by eager attention and by arithmetic, distances by their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import headatlas as ha
from headatlas.lab.measure import attend
from headatlas.methods import recall_by_lag
from headatlas.methods.recall_by_lag import LAGS, PARAMETERS, cmr_curves, distances, fit, simulated
from headatlas.tasks.repeated import repeated
from tests import toys

ZERO = LAGS.index(0)


@pytest.mark.parametrize("short", [recall_by_lag.SHORT, 4], ids=["at once", "lag by lag"])
def test_curves_are_those_of_eager_attention(short: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recall_by_lag, "SHORT", short)
    model = toys.model("gqa")
    batch = repeated(model.tokenizer, 2, 3)
    patterns = torch.cat(attend(model.hf, batch.tokens)[0], 1)
    period, start = batch.facts["period"], int(batch.positions["duplicate_key"].min())
    wanted = np.zeros((len(model.heads), len(LAGS)))
    for place, lag in enumerate(LAGS):
        pairs = [(i, i + lag) for i in range(period) if 0 <= i + lag < period]
        seen = [patterns[:, :, start + period + i, start + j].mean(0).numpy() for i, j in pairs]
        wanted[:, place] = np.mean(seen, 0)
    np.testing.assert_allclose(ha.recall_by_lag(model, n=2, seed=3).curves, wanted, atol=1e-6)


@pytest.mark.parametrize("beta", [0.3, 0.5, 1.0])
def test_without_context_from_items_recall_goes_forwards_and_falls_off_as_a_power(beta: float):
    found = simulated(beta, 1.0, 0.0, runs=100)
    wanted = np.array([(1 - beta) ** (lag - 1) if lag > 0 else 0.0 for lag in LAGS])
    np.testing.assert_allclose(found, wanted / wanted.sum(), atol=0.02)


def test_one_step_of_recall_is_drawn_from_the_strengths_that_the_equations_give():
    """The first transition of each recall, where context is the starting item: by direct sums, without any matrix."""
    beta, gamma, n = 0.4, 1.0, 12
    strength = np.zeros(n)
    context = np.array([(1 - beta) ** (6 - i - 1) if i < 6 else 0.0 for i in range(n)])
    for i in range(n):
        for j in range(i + 1, n):
            strength[j] += context[i] * (1 - beta) ** (j - i - 1)
    # With gamma = 1 the context that item 6 brings back is that of the items before it, so recall goes both ways.
    assert strength[5] > 0
    curve = cmr_curves()[PARAMETERS.index((beta, 1.0, gamma))]
    lags = np.array([strength[6 + lag] if 0 <= 6 + lag < n else 0.0 for lag in LAGS])
    assert np.corrcoef(curve, lags)[0, 1] > 0.95


def test_the_kept_curves_are_those_that_the_simulation_gives():
    curves = cmr_curves()
    assert curves.shape == (len(PARAMETERS), len(LAGS))
    np.testing.assert_allclose(curves.sum(1), 1.0, atol=1e-3)
    for which in (0, 37, 200, 359):
        np.testing.assert_allclose(curves[which], simulated(*PARAMETERS[which]), atol=1e-5)


def test_a_curve_of_cmr_has_distance_zero_and_white_noise_is_far():
    curve = cmr_curves()[PARAMETERS.index((0.5, 1.0, 0.4))]
    found = fit(0.3 * curve + 0.1)
    assert found.distance < 1e-12
    assert found[1:] == (0.5, 1.0, 0.4)
    noise = np.random.default_rng(0).random((200, len(LAGS)))
    assert np.median(distances(noise).min(-1)) > 0.5
    peak = np.zeros(len(LAGS))
    peak[ZERO + 1] = 1.0
    assert fit(peak).distance < 1e-3, "an induction head"
    peak = np.zeros(len(LAGS))
    peak[ZERO - 3] = 1.0
    assert fit(peak).distance > 0.5


def test_the_distance_is_the_mean_square_over_the_variance_at_one_height():
    curve = np.random.default_rng(1).random(len(LAGS))
    own, other = curve - curve.min(), cmr_curves()[17] - cmr_curves()[17].min()
    wanted = np.mean((other / other.max() * own.max() - own) ** 2) / np.var(curve)
    assert distances(curve)[17] == pytest.approx(wanted)


def test_flat_curves_have_no_distance():
    assert np.isnan(fit(np.full(len(LAGS), 0.2)).distance)
    assert np.isnan(fit(cmr_curves()[20] * 0.01, least=0.1).distance)
