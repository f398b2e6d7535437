"""Inactive heads: norms against the writes themselves, a head that is silenced, and what first-token attention misses."""

import pytest
import torch

from headatlas.detectors import inactive as module
from headatlas.detectors.attention_sink import attention_sink
from headatlas.detectors.inactive import inactive
from headatlas.heads import HeadId
from headatlas.lab.planting import find_planting
from headatlas.mining.scan import scan
from headatlas.task import Batch
from tests import toys


def text(n: int = 3, length: int = 12, left: int = 0) -> Batch:
    tokens = torch.randint(5, 150, (n, length), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    return batch.padded(left=left) if left else batch


@pytest.mark.parametrize("kind", ["gqa", "gpt2"])
def test_norms_are_those_of_the_writes(kind: str):
    model, batch, told, written = toys.model(kind), text(), [], []

    def watch(layer):
        told.append(module._norms(layer))
        written.append(layer.writes().norm(dim=-1).transpose(1, 2))

    model.forward(batch, watch=watch)
    torch.testing.assert_close(torch.cat(told, 1), torch.cat(written, 1), atol=1e-5, rtol=1e-4)


def test_scores_do_not_depend_on_padding_or_on_the_other_examples():
    model = toys.model("gqa")
    scores = inactive.measure(model, text()).values
    torch.testing.assert_close(inactive.measure(model, text(left=3)).values, scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(inactive.measure(model, text().rows([1])).values, scores[1:2], atol=1e-4, rtol=0)


def test_a_head_whose_output_is_taken_away_scores_one_and_louder_ones_nothing():
    model = toys.model("gpt2")
    layer = model.layer(0)
    size, weight = layer.d_value, layer.projection.weight  # [head x d_value, d_model]
    before = weight.detach().clone()
    with torch.no_grad():
        weight[:size] = 0  # rows of the first head
        weight[size : 2 * size] *= 10
    try:
        scores = inactive.measure(model, text()).values
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert scores[:, 0].min() == pytest.approx(1)
    assert scores[:, 1].max() == 0
    assert 0 <= scores.min() <= scores.max() <= 1


def test_a_silent_head_that_does_not_rest_on_the_first_token_is_found_by_its_output_alone():
    made = find_planting("inactive").make(0)
    batch = inactive.task(made.model.tokenizer, 8, 0)
    found = scan(made.model, [inactive, attention_sink], batch).scores
    observed = {name: {line.head for line in found[name].observed(0.6)} for name in ("inactive", "attention-sink")}
    assert observed["inactive"] == made.positives
    assert len(observed["attention-sink"] & made.positives) == 1  # the other silent head sees a window
    assert observed["attention-sink"] - made.positives  # and one that rests there writes
    assert all(isinstance(head, HeadId) for head in observed["inactive"])
