"""Logistic regressions side by side against scikit-learn's, one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from headatlas.ops.logistic import decisions


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_log_odds_are_those_of_scikit_learn_solved_to_the_end(scale: float):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 60, 7)) * scale
    y = x[:, :, 0] + scale * rng.normal(size=(3, 60)) > 0.3 * scale  # the last fit leaves examples out
    weight = rng.uniform(0.5, 2.0, size=(3, 60))
    weight[2, 40:] = 0.0
    found = decisions(x, y, weight)
    assert found is not None
    for i in range(3):
        plain = LogisticRegression(tol=1e-12, max_iter=10_000).fit(x[i], y[i], sample_weight=weight[i])
        np.testing.assert_allclose(found[i], plain.decision_function(x[i]), atol=1e-4, rtol=1e-4)


def test_classes_that_a_plane_parts_stay_finite():
    x = np.linspace(-1.0, 1.0, 20)[None, :, None] * 1e3
    found = decisions(x, x[..., 0] > 0, np.ones((1, 20)))
    assert found is None or (np.isfinite(found).all() and ((found > 0) == (x[..., 0] > 0)).all())
