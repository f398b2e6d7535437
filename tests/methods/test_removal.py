"""Removals side by side against the one-by-one ablation that verdicts use."""

from dataclasses import replace

import numpy as np
import pytest

from headatlas.edits import Mean
from headatlas.methods.removal import Removal
from headatlas.methods.verdict import Ablation
from headatlas.model import attach
from headatlas.model.zoo import FAMILIES
from headatlas.task import Metric, logit_difference, next_token_loss
from tests.methods.test_replay import prompts


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "jamba", "albert"])
@pytest.mark.parametrize("metric", [logit_difference, next_token_loss], ids=lambda metric: metric.name)
def test_removals_equal_the_verdicts_ablation(name: str, metric: Metric):
    model, batch = attach(FAMILIES[name].build()), prompts(3)
    if not model.has_logits:
        pytest.skip("no token logits")
    mean = Mean.over(model, model.heads, batch).values
    batch = replace(batch, at={**batch.at, "predict": batch.at["end"][:, None] - 1 - np.arange(4)})
    for made in (batch, replace(batch, counterfactual=None)):
        one_by_one, removal = Ablation(model, made, metric, mean), Removal(model, made, metric, mean)
        sets = [[head] for head in model.heads[:5]] + [model.heads[2:9:3], model.heads]
        removal.prepare(sets)
        np.testing.assert_allclose(removal.clean, one_by_one.clean, atol=1e-5)
        for heads in sets:
            np.testing.assert_allclose(removal.worsening(heads), one_by_one.worsening(heads), atol=1e-5, rtol=1e-4)
        assert float(np.abs(removal.worsening(model.heads)).max()) > 0
