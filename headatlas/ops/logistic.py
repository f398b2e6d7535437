"""Logistic regressions that share their examples, fitted side by side: one at a time, a library spends its time on preparing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headatlas.ops.types import Array

STEPS = 50  # of Newton's method; about seven are taken
EXACT = 1e-9  # size of the last step, beside the largest coefficient


def decisions(x: Array, y: NDArray[np.bool_], weight: Array) -> Array | None:
    """[fit, example] log odds of the second class, from logistic regressions with ridge penalty 1/2 |coefficients|^2.

    x [fit, example, dimension], y [fit, example] whether it is of the second class, weight [fit, example] of each example's
    loss, 0 for those that are not fitted. The intercept is not penalised. That is scikit-learn's `LogisticRegression(C=1)`
    with sample weights, solved to the last digits (Newton's method, on the convex loss). None where a step did not settle.
    """
    n_fits, n, width = x.shape
    known = np.concatenate([x, np.ones((n_fits, n, 1))], -1)
    penalty = np.append(np.ones(width), 0.0)
    found = np.zeros((n_fits, width + 1))
    for _ in range(STEPS):
        odds = (known @ found[..., None])[..., 0]
        chance = 0.5 * (1.0 + np.tanh(0.5 * odds))
        slope = ((weight * (chance - y))[:, None] @ known)[:, 0] + penalty * found
        curve = (known * (weight * chance * (1.0 - chance))[..., None]).transpose(0, 2, 1) @ known + np.diag(penalty)
        try:
            step = np.linalg.solve(curve, slope[..., None])[..., 0]
        except np.linalg.LinAlgError:  # all chances are 0 or 1 to the last bit: the steps ran away
            return None
        found -= step
        if np.abs(step).max() <= EXACT * max(1.0, np.abs(found).max()):
            result: Array = (known @ found[..., None])[..., 0]
            return result
    return None
