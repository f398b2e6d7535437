"""The span of attention by loss: effects of masking against masked runs, spans against plain sums, and heads of known spans."""

import numpy as np
import pytest
import torch

from headatlas.detectors import attention_span as module
from headatlas.detectors.attention_span import TOLERANCE, attention_span
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.plantings._sowing import sown
from headatlas.lab.spec import PlantSpec
from headatlas.methods.sweeps.gradient_estimate import slopes_in_z
from headatlas.task import Batch, next_token_loss
from tests import toys


def text(n: int = 2, length: int = 12, left: int = 0) -> Batch:
    tokens = torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(0))
    predict = torch.arange(2, length - 1).expand(n, -1)
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"predict": predict})
    return batch.padded(left=left) if left else batch


def watched(model, batch):
    """(stack, layer) -> effects of masking, and the pattern."""
    seen = {}

    def watch(layer):
        seen[layer.stack, layer.index] = layer.pattern.clone(), layer.repeat(layer.v).clone()

    model.forward(batch, watch=watch)
    slopes = slopes_in_z(model, batch, next_token_loss)
    effects = {key[1]: module._masking_effects(*found, slopes[key]) for key, found in seen.items()}
    patterns = {key[1]: pattern for key, (pattern, _) in seen.items()}
    return effects, patterns


@pytest.mark.parametrize("kind", ["gqa", "gpt2"])
def test_effects_of_masking_are_those_of_masked_runs(kind: str):
    """Little by little: a key's weight shrinks by a small share of itself and its row is normed again."""
    model, batch = toys.model(kind), text()
    effects, _ = watched(model, batch)
    small, layer, head = 1e-2, 1, 2

    class Shrink:
        component, layers, heads = "pattern", frozenset([("decoder", layer)]), ()

        def __init__(self, query, key):
            self.query, self.key = query, key

        def __call__(self, view, pattern):
            changed = pattern.clone()
            changed[:, head, self.query, self.key] *= 1 - small
            row = changed[:, head, self.query]
            changed[:, head, self.query] = row / row.sum(-1, keepdim=True)
            return changed

    def loss(edits):
        logits = model.forward(batch, edits=edits, logit_positions=next_token_loss.positions(batch))
        return next_token_loss.score(logits.double(), batch)

    base = loss([])
    for query, key in ((9, 4), (9, 9), (6, 1)):
        weight = watched(model, batch)[1][layer][:, head, query, key]
        # masking takes all of A: its first order is that of a small share, over the share
        moved = (loss([Shrink(query, key)]) - base) / small
        expected = effects[layer][:, head, query, key] * (1 - weight)
        np.testing.assert_allclose(moved, expected, rtol=0.1, atol=2e-4)


def test_a_span_is_the_least_beyond_which_little_lies():
    batch, length = text(1, 10), 10
    effect = torch.rand(1, 3, length, length, generator=torch.Generator().manual_seed(1))
    effect[:, 2] = 0.0
    found, even = (module._shortness(one, batch)[0] for one in module._profiles(effect, batch))
    for head in range(2):
        plain = np.zeros(length)
        spread = np.zeros(length)
        for i in range(1, length):
            whole = sum(float(effect[0, head, i, j]) for j in range(1, i + 1))
            for j in range(1, i + 1):
                plain[i - j] += float(effect[0, head, i, j])
                spread[i - j] += whole / i
        for profile, value in ((plain, found[head]), (spread, even[head])):
            span = next(s for s in range(1, length + 1) if profile[s:].sum() <= TOLERANCE * profile.sum() + 1e-9)
            assert value.item() == pytest.approx(1 - (span - 1) / (length - 1))
    assert bool(found[2].isnan())


def test_what_the_run_with_gradients_shows_is_what_a_plain_run_shows():
    """A watcher of that run sees the same patterns and values, and nothing of it is recorded."""
    model, batch = toys.model("gqa"), text()
    plain, beside = {}, {}

    def into(found):
        def watch(layer):
            found[layer.index] = layer.pattern.clone(), layer.repeat(layer.v).clone()

        return watch

    model.forward(batch, watch=into(plain))
    slopes = slopes_in_z(model, batch, next_token_loss, watch=into(beside))
    assert beside.keys() == plain.keys()
    for index, found in beside.items():
        assert not any(x.requires_grad for x in found)
        for a, b in zip(found, plain[index], strict=True):
            torch.testing.assert_close(a, b)
    for key, slope in slopes_in_z(model, batch, next_token_loss).items():
        torch.testing.assert_close(slopes[key], slope)


def test_padding_and_batches_change_no_span():
    model, batch = toys.model("gqa"), text(3)
    whole = attention_span.measure(model, batch)
    one = attention_span.measure(model, batch.rows(torch.tensor([1])))
    padded = attention_span.measure(model, batch.padded(right=3))
    for a, b in ((whole.values[1:2], one.values), (whole.values, padded.values), (whole.control, padded.control)):
        torch.testing.assert_close(a, b)


def test_a_window_is_local_and_a_head_that_looks_far_is_not():
    heads = (Head(0, 0, "previous"), Head(1, 0, "window", width=4), Head(2, 1, "induction"))
    planted = plant(PlantSpec(heads), architecture="llama", n_layers=3, n_heads=4, width=256, vocab=256, context=96)
    model = sown(planted, []).model
    tokens = torch.randint(2, 250, (4, 40), generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([torch.zeros(4, 1, dtype=torch.long), tokens, tokens], 1)
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), {"predict": torch.arange(44, 79).expand(4, -1)})
    found = attention_span.measure(model, batch)
    excess = (found.values - found.control).nanmean(0)
    by_head = dict(zip(model.heads, excess.tolist(), strict=True))
    assert by_head[heads[1].id] > attention_span.minimum_effect
    assert by_head[heads[0].id] > attention_span.minimum_effect
    assert by_head[heads[2].id] < attention_span.minimum_effect / 2
