"""Per-head weights against what attention really gets: v, q and k of every family, and known layouts by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model import attach
from headatlas.model.core.head_weights import HeadWeights
from headatlas.model.core.linear_and_norm import is_linear, norm_gain
from headatlas.model.families import tiny_models
from headatlas.model.structure import model_weights
from tests.model.families import FAMILIES, inputs, opened

LATENT = ("deepseek-v2", "deepseek-v3")


@contextlib.contextmanager
def watching(modules: list[nn.Module], skip: list[nn.Module]) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """What modules read, in order of their calls; `skip` hand their input on."""
    reads: dict[nn.Module, list[Tensor]] = {module: [] for module in modules}
    handles = [m.register_forward_pre_hook(lambda m, args: reads[m].append(args[0])) for m in modules]
    handles += [m.register_forward_hook(lambda _, args, __: args[0]) for m in skip]
    try:
        yield reads
    finally:
        for handle in handles:
            handle.remove()


def norms_within(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if "norm" in type(part).__name__.lower()]


def arrived(model: Any, given: Any) -> dict[tuple[str, int], tuple[Tensor, Tensor, Tensor]]:
    found: dict[tuple[str, int], tuple[Tensor, Tensor, Tensor]] = {}
    model.forward(given, watch=lambda layer: found.update({(layer.stack, layer.index): (layer.q, layer.k, layer.v)}))
    return found


def applied(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [example, pos, d_model] through [head, d_model, d] -> [example, head, pos, d]."""
    out = torch.einsum("enm,hmd->ehnd", x.view(2, -1, x.shape[-1]), weight)
    return out if bias is None else out + bias[:, None]


def pairs_of(ours: HeadWeights) -> dict[str, tuple[Tensor, Tensor | None]]:
    return {"q": (ours.W_Q, ours.b_Q), "k": (ours.W_K, ours.b_K), "v": (ours.W_V, ours.b_V)}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in LATENT])
def test_weights_give_the_queries_keys_and_values_that_reach_the_attention(name: str):
    model = opened(name)
    parts = {part for layer in model.layers for part in layer.module.modules() if is_linear(part)}
    skip = [part for layer in model.layers for part in norms_within(layer.module)]  # norms of queries and keys
    turns: dict[nn.Module, int] = {}
    with watching(list(parts), list(dict.fromkeys(skip))) as reads:
        found = arrived(model, inputs(name))
    for layer in model.layers:
        ours = model_weights.weights_of(model, layer.index, layer.stack)
        turn = turns[layer.module] = turns.get(layer.module, -1) + 1
        q, k, v = found[layer.stack, layer.index]
        assert ours.exact == (name != "olmo")
        assert ours.W_Q.shape == (4, ours.W_Q.shape[1], layer.d_head)
        assert ours.W_K.shape[0] == ours.W_V.shape[0] == ours.groups == tiny_models.family(name).groups
        x = {what: reads[getattr(layer.qkv, what).projections[0]][turn] for what in "qkv"}
        guess = {what: applied(x[what], *pair) for what, pair in pairs_of(ours).items()}
        if name == "olmo":  # clips its queries, keys and values
            guess = {what: value.clamp(-1, 1) for what, value in guess.items()}
        torch.testing.assert_close(v, guess["v"], atol=1e-4, rtol=1e-3)
        # The first position is not turned by rotary embeddings.
        torch.testing.assert_close(q[:, :, 0], guess["q"][:, :, 0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(k[:, :, 0], guess["k"][:, :, 0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(ours.W_O, layer.output_weight())
        assert ours.per_head(ours.W_V).shape[0] == 4


@pytest.mark.parametrize("name", LATENT)
def test_low_rank_values_and_keys_are_exact_up_to_the_inner_norms_scale(name: str):
    model = opened(name)
    for layer in model.layers:
        ours = model_weights.weights_of(model, layer.index)
        assert not ours.exact
        first = next(part for part in layer.module.modules() if type(part) is nn.Linear)
        with watching([first], []) as reads:
            q, k, v = arrived(model, inputs(name))["decoder", layer.index]
        x = reads[first][0]
        nope = k.shape[-1] - 4  # the rotary part of the keys skips the norm
        for real, guess in (
            (v, applied(x, ours.W_V, ours.b_V)),
            (k[..., :nope], applied(x, ours.W_K, ours.b_K)[..., :nope]),
        ):
            ratio = (real * guess).sum((1, 3), keepdim=True) / (guess * guess).sum((1, 3), keepdim=True)
            assert (ratio > 0).all()
            torch.testing.assert_close(real, guess * ratio, atol=1e-4, rtol=1e-3)
        turned = applied(x, ours.W_K, ours.b_K)[:, :, 0, nope:]
        torch.testing.assert_close(k[:, :, 0, nope:], turned, atol=1e-4, rtol=1e-3)
        guess = applied(x, ours.W_Q, ours.b_Q)[:, :, 0]
        ratio = (q[:, :, 0] * guess).sum((1, 2), keepdim=True) / (guess * guess).sum((1, 2), keepdim=True)
        torch.testing.assert_close(q[:, :, 0], guess * ratio, atol=1e-4, rtol=1e-3)


def test_known_layouts_by_hand():
    def of(name: str) -> tuple[Any, HeadWeights]:
        model = opened(name)
        layer = model.layers[1]
        return layer.module, model_weights.weights_of(model, layer.index, layer.stack)

    module, ours = of("gpt2")  # Conv1D, [q | k | v]
    torch.testing.assert_close(ours.W_K[2], module.c_attn.weight[:, 32 + 16 : 32 + 24])
    torch.testing.assert_close(ours.b_V[3], module.c_attn.bias[64 + 24 : 64 + 32])
    for name in ("gpt-neox", "bloom"):  # head by head, [q, k, v] each
        module, ours = of(name)
        torch.testing.assert_close(ours.W_V[2], module.query_key_value.weight[48 + 16 : 48 + 24].T)
    module, ours = of("falcon-grouped")  # group by group, [q, q, k, v] each
    torch.testing.assert_close(ours.W_Q[3], module.query_key_value.weight[32 + 8 : 32 + 16].T)
    torch.testing.assert_close(ours.W_V[1], module.query_key_value.weight[32 + 24 : 32 + 32].T)
    module, ours = of("phi3")  # [q | k | v] with two groups
    torch.testing.assert_close(ours.W_K[1], module.qkv_proj.weight[32 + 8 : 32 + 16].T)
    module, ours = of("modernbert")
    torch.testing.assert_close(ours.W_V[1], module.Wqkv.weight[64 + 8 : 64 + 16].T)
    module, ours = of("llama")
    torch.testing.assert_close(ours.per_head(ours.W_K)[2], module.k_proj.weight[8:16].T)
    module, ours = of("qwen3-next")  # each head's query beside its gate
    torch.testing.assert_close(ours.W_Q[1], module.q_proj.weight[32:48].T)
    module, ours = of("opt")  # queries are scaled after their projection
    torch.testing.assert_close(ours.W_Q[1], module.q_proj.weight[8:16].T * 8**-0.5)


NO_NORM_BEFORE = ("olmo2", "olmo3", "exaone4", "falcon-h1")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in LATENT])
def test_folded_weights_act_on_the_stream_before_the_norm(name: str):
    model = opened(name)
    layer = model.layers[-1]
    if name in (*NO_NORM_BEFORE, "mobilebert"):
        with pytest.raises(UnsupportedModel, match=r"no gain to fold|does not normalise"):
            model_weights.folded(model, layer.index, layer.stack)
        return
    norm = layer.qkv.inputs[layer.qkv.q.projections[0]].norm
    before = {key: value.clone() for key, value in model.hf.state_dict().items()}
    with watching([norm], norms_within(layer.module)) as reads:
        q = arrived(model, inputs(name))[layer.stack, layer.index][0]
    x = reads[norm][-2 if name == "albert" else 0]
    x = x.view(2, -1, x.shape[-1])
    ours = model_weights.folded(model, layer.index, layer.stack)
    centred = norm_gain(norm, x.shape[-1])[1]
    scale = (x - x.mean(-1, keepdim=True) if centred else x).square().mean(-1, keepdim=True).sqrt()
    guess = applied(x / scale, ours.W_Q, ours.b_Q)[:, :, 0]
    torch.testing.assert_close(q[:, :, 0], guess.clamp(-1, 1) if name == "olmo" else guess, atol=2e-3, rtol=2e-3)
    assert all(torch.equal(before[key], value) for key, value in model.hf.state_dict().items()), "the model was changed"


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma", "opt", "olmo", "bloom", "phi", "nemotron", "gpt-neox"])
def test_the_folded_unembedding_gives_the_logits(name: str):
    model = opened(name)
    weight, bias = model_weights.folded_unembedding(model)
    seen: dict[str, Tensor] = {}
    norms = [part for part in model.hf.modules() if "norm" in type(part).__name__.lower()]
    handles = [n.register_forward_hook(lambda _, args, __: seen.update(last=args[0])) for n in norms]
    try:
        logits = model.forward(inputs(name))
    finally:
        for handle in handles:
            handle.remove()
    x = seen["last"]
    if model.unembedding.centers:
        x = x - x.mean(-1, keepdim=True)
    guess = x / x.square().mean(-1, keepdim=True).sqrt() @ weight
    torch.testing.assert_close(guess if bias is None else guess + bias, logits, atol=5e-3, rtol=2e-3)


class Int8(nn.Module):
    """A quantised linear map: whole numbers and a scale per output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.scale, self.bias)


@pytest.mark.parametrize("name", ["llama", "qwen2", "bloom", "gpt-neox"])
def test_quantised_projections_are_read_by_asking_them(name: str):
    hf = tiny_models.family(name).build()
    for module in list(hf.modules()):
        for child_name, child in list(module.named_children()):
            if type(child) is nn.Linear and child is not hf.get_output_embeddings():
                setattr(module, child_name, Int8(child))
    model = attach(hf)
    layer = model.layers[1]
    plain = model_weights.weights_of(opened(name), 1)
    ours = model_weights.weights_of(model, 1)
    projection = layer.qkv.v.projections[0]
    with watching([projection], []) as reads:
        v = arrived(model, inputs(name))["decoder", 1][2]
    torch.testing.assert_close(v, applied(reads[projection][0], ours.W_V, ours.b_V), atol=1e-4, rtol=1e-3)
    assert 0 < (ours.W_V - plain.W_V).abs().max() < 0.02
    real = layer.projection(torch.ones(1, 32))
    torch.testing.assert_close(
        ours.W_O.sum((0, 1)) + (0 if layer.output_bias() is None else layer.output_bias()), real[0]
    )


def test_half_precision_reads_the_same_columns():
    for name in ("phi3", "gpt-neox", "deepseek-v3", "falcon-grouped"):
        half = attach(tiny_models.family(name).build(dtype=torch.bfloat16))
        full = model_weights.weights_of(opened(name), 2)
        torch.testing.assert_close(model_weights.weights_of(half, 2).W_K.float(), full.W_K, atol=3e-2, rtol=3e-2)


def test_a_view_gives_its_layers_weights():
    model, seen = opened("mistral"), []

    def watch(layer: Any) -> None:
        ours = model_weights.weights_of(model, layer.index)
        assert torch.equal(layer.W_Q, ours.W_Q)
        assert torch.equal(layer.W_K, ours.W_K)
        assert torch.equal(layer.W_V, ours.W_V)
        assert torch.equal(layer.W_O, ours.W_O)
        seen.append(layer.index)

    model.forward(inputs("mistral"), watch=watch)
    assert seen == [0, 1, 2]


def test_refusals_name_what_is_wrong():
    with pytest.raises(BadInput, match="no attention layer 7"):
        model_weights.weights_of(opened("llama"), 7)
    with pytest.raises(UnsupportedModel, match="BertModel has no linear read-out"):
        model_weights.folded_unembedding(opened("bert"))
