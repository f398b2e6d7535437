"""Edits of attention patterns against masks and divided scores before the softmax, written here; learned sinks."""

import pytest
import torch
import transformers as T

from headatlas.edits import Block, Temper, Zero
from headatlas.model import attach
from tests import toys
from tests.edits.test_edits import batch, by_hook, seen


def masked(model, inputs, layer: int, heads: list[int], queries, keys) -> torch.Tensor:
    """Logits with attention masked before the softmax, by eager attention written here: scores, mask, softmax."""
    kept = {}

    def watch(view):
        if view.index == layer:
            scores = torch.einsum("ehqd,ehkd->ehqk", view.q, view.repeat(view.k)) * view.scale
            n = scores.shape[-1]
            scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
            for head in heads:
                for query in queries:
                    scores[:, head, query, keys] = -torch.inf
            weights = scores.softmax(-1).nan_to_num(0.0)
            kept["z"] = torch.einsum("ehqk,ehkd->eqhd", weights, view.repeat(view.v))

    model.forward(inputs, watch=watch)
    return by_hook(model, inputs, layer, lambda _: kept["z"])


@pytest.mark.parametrize("kind", ["mha", "gqa", "mqa", "gpt2"])
def test_blocked_attention_equals_a_mask_before_the_softmax(kind):
    model, inputs = toys.model(kind), batch(2, 20)
    found = model.forward(inputs, edits=[Block("1.1 1.2", keys=[0, 3, 4], queries=[4, 9, 19])])
    torch.testing.assert_close(found, masked(model, inputs, 1, [1, 2], [4, 9, 19], [0, 3, 4]), atol=5e-6, rtol=1e-5)
    # A query that may look at nothing puts out nothing.
    none = model.forward(inputs, edits=[Block("1.1", keys=range(20), queries=[5])])
    torch.testing.assert_close(none, model.forward(inputs, edits=[Zero("1.1", positions=[5])]), atol=5e-6, rtol=1e-5)
    lost = seen(model, inputs, "pattern", [Block("1.1", keys=[0], queries=[7], renormalise=False)])[1]
    plain = seen(model, inputs, "pattern")[1]
    torch.testing.assert_close(lost[:, 7, 1].sum(-1), 1 - plain[:, 7, 1, 0], atol=1e-6, rtol=1e-5)


def test_blocking_nearly_everything_keeps_its_digits():
    """Where the blocked keys held all but a millionth, the rest is still right: it is not one minus almost one."""
    torch.manual_seed(0)
    hf = toys.llama(num_key_value_heads=4)
    hf.model.layers[1].self_attn.q_proj.weight.data *= 3000
    model, inputs = attach(hf), batch(2, 20)
    top = seen(model, inputs, "pattern")[1][0, :, 1].max(-1)  # of each query
    sharp = (top.values > 1 - 1e-3) & (top.values < 1 - 1e-6)
    query = int(sharp.nonzero()[-1])
    key = int(top.indices[query])
    found = model.forward(inputs, edits=[Block("1.1", keys=[key], queries=[query])])
    torch.testing.assert_close(found, masked(model, inputs, 1, [1], [query], [key]), atol=2e-6, rtol=1e-4)


def gpt_oss() -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {**toys.SMALL, "head_dim": 16, "sliding_window": 24, "num_local_experts": 4, "num_experts_per_tok": 2}
    hf = T.GptOssForCausalLM(T.GptOssConfig(**sizes)).eval()
    for layer in hf.model.layers:
        layer.self_attn.sinks.data = torch.tensor([0.5, 1.5, -1.0, 3.0])
    return hf


def test_sinks_keep_their_part_when_attention_is_blocked_or_tempered():
    model, inputs = attach(gpt_oss()), batch(2, 16)
    kept = {}

    def watch(layer):
        scores = torch.einsum("ehqd,ehkd->ehqk", layer.q, layer.repeat(layer.k)) * layer.scale
        scores = scores.masked_fill(torch.ones(16, 16, dtype=torch.bool).triu(1), -torch.inf)
        sink = torch.tensor([0.5, 1.5, -1.0, 3.0])[None, :, None, None].expand(2, 4, 16, 1)
        kept[layer.index] = torch.cat([scores, sink], -1)

    model.forward(inputs, watch=watch)
    blocked = kept[1].clone()
    blocked[:, 2, 9, [0, 4]] = -torch.inf
    expected = blocked.softmax(-1)[..., :-1]
    found = seen(model, inputs, "pattern", [Block("1.2", keys=[0, 4], queries=[9])])[1].transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    expected = (kept[1] / 2.5).softmax(-1)[:, 2, :, :-1]
    found = seen(model, inputs, "pattern", [Temper("1.2", 2.5)])[1][:, :, 2]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_tempered_attention_equals_divided_scores(temperature):
    model, inputs = toys.model("gqa"), batch(2, 20)
    found = seen(model, inputs, "pattern", [Temper("1.2", temperature)])[1][:, :, 2]
    kept = {}

    def watch(layer):
        scores = torch.einsum("ehqd,ehkd->ehqk", layer.q, layer.repeat(layer.k)) * layer.scale
        kept[layer.index] = scores.masked_fill(torch.ones(20, 20, dtype=torch.bool).triu(1), -torch.inf)

    model.forward(inputs, watch=watch)
    torch.testing.assert_close(found, (kept[1] / temperature).softmax(-1)[:, 2], atol=2e-6, rtol=1e-5)
