"""Michel's importance beside plain autograd on the transformers model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from headatlas.errors import BadInput
from headatlas.methods.attribution.importance import head_importance
from headatlas.model import attach
from headatlas.task import Batch, next_token_loss
from headatlas.task.answers import kl
from tests import toys

LENGTH = 12


def batch() -> Batch:
    tokens = torch.randint(5, 150, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[2, 8:] = False
    predict = torch.arange(LENGTH - 1).expand(3, -1).clone()
    predict[2, 7:] = -1
    return Batch(tokens, mask, {"predict": predict})


@pytest.fixture(scope="module")
def model():
    hf = toys.gpt2()
    with torch.no_grad():
        hf.transformer.h[1].attn.c_proj.weight[:8] = 0.0  # the first head of layer 1 writes nothing
    return attach(hf)


def by_autograd(hf, given: Batch) -> np.ndarray:
    """[layer, head] mean over real tokens of |z . dL/dz|, z as the input of the output projection."""
    kept: list[torch.Tensor] = []

    def keep(module, inputs):
        inputs[0].retain_grad()
        kept.append(inputs[0])

    handles = [block.attn.c_proj.register_forward_pre_hook(keep) for block in hf.transformer.h]
    logits = hf(given.tokens, attention_mask=given.mask.long()).logits
    at = given.positions["predict"].clamp(min=0)
    next_token_loss.score(logits.gather(1, at[..., None].expand(-1, -1, logits.shape[-1])), given).sum().backward()
    for handle in handles:
        handle.remove()
    products = [(x * x.grad).unflatten(-1, (-1, 8)).sum(-1).abs() for x in kept]
    return np.array([(one[given.mask]).sum(0).detach().numpy() / int(given.mask.sum()) for one in products])


def test_importance_is_that_of_plain_autograd(model):
    found = head_importance(model, batch(), next_token_loss)
    np.testing.assert_allclose(found.raw, by_autograd(model.hf, batch()).ravel(), rtol=2e-3, atol=1e-7)


def test_layers_are_normed_and_a_silent_head_is_worth_nothing(model):
    found = head_importance(model, batch(), next_token_loss)
    np.testing.assert_allclose(np.linalg.norm(found.grid(), axis=1), 1, rtol=1e-5)
    assert found.raw[model.heads.index(model.layer(1).heads[0])] == pytest.approx(0, abs=1e-9)
    assert found.order()[0] == model.layer(1).heads[0]


def test_twice_the_loss_is_twice_as_important_and_normed_alike(model):
    twice = replace(next_token_loss, score=lambda logits, given: 2 * next_token_loss.score(logits, given))
    once, other = (head_importance(model, batch(), metric) for metric in (next_token_loss, twice))
    np.testing.assert_allclose(other.raw, 2 * once.raw, rtol=1e-5)
    np.testing.assert_allclose(other.normed, once.normed, rtol=1e-5)


def test_a_metric_without_a_slope_is_refused(model):
    with pytest.raises(BadInput, match="no slope"):
        head_importance(model, batch(), kl)
