"""Directions for steering and projecting out, against planted differences and other solvers."""

import numpy as np
import pytest
import torch

from headatlas.edits import OnHeads, collect, directions
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.task import Batch
from tests import toys
from tests.edits.test_edits import batch


def test_directions_find_what_was_planted():
    """The last token decides the label; every method finds a direction that separates, a random one does not."""
    model, inputs = toys.model("gqa"), batch(60, 8)
    labels = (torch.arange(60) % 2).long()
    tokens = inputs.tokens.clone()
    tokens[:, -1] = torch.where(labels == 1, 20, 60)
    inputs = Batch(tokens, inputs.mask)
    z = collect(model, inputs, OnHeads("1.2", component="q"))["decoder", 1][:, -1, 2]
    difference = directions.difference_of_means(model, "1.2", inputs, labels, component="q")
    torch.testing.assert_close(
        difference[HeadId(1, 2)], z[labels == 1].mean(0) - z[labels == 0].mean(0), atol=1e-6, rtol=1e-4
    )
    probe = directions.probe(model, "1.2", inputs, labels, component="q")
    principal = directions.principal(model, "1.2", inputs, k=2, component="q")
    assert principal[HeadId(1, 2)].shape == (2, z.shape[1])
    covariance = np.linalg.eigh(np.cov(z.numpy().T))
    top = np.abs(covariance.eigenvectors[:, -1] @ principal[HeadId(1, 2)][0].numpy())
    assert top == pytest.approx(1, abs=1e-3)

    def accuracy(direction):
        projected = z @ direction[HeadId(1, 2)]
        middle = (projected[labels == 1].mean() + projected[labels == 0].mean()) / 2
        return float(((projected > middle) == (labels == 1)).float().mean())

    assert accuracy(difference) > 0.95
    assert accuracy(probe) > 0.95
    control = directions.random(difference, seed=1)
    assert float(control[HeadId(1, 2)].norm()) == pytest.approx(float(difference[HeadId(1, 2)].norm()), rel=1e-5)
    residual = directions.difference_of_means(model, 1, inputs, labels, component="residual")
    assert residual["decoder", 1].shape == (32,)
    with pytest.raises(BadInput, match="Labels must be 0 and 1"):
        directions.probe(model, "1.2", inputs, torch.ones(60))


def test_the_probe_direction_is_a_minimum():
    """The gradient of the penalised loss vanishes there, checked on the weights that a separate solver finds."""
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 5, generator=generator)
    positive = (x[:, 0] - 0.5 * x[:, 3] + 0.7 * torch.randn(80, generator=generator)) > 0
    found = directions._logistic(x, positive, 1.0)
    scaled = (x - x.mean(0)) / x.std(0)
    theirs = (
        LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(scaled.numpy(), positive.numpy()).coef_[0]
        / x.std(0).numpy()
    )
    np.testing.assert_allclose(found.numpy(), theirs, rtol=1e-3, atol=1e-3)
