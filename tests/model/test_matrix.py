"""What is seen in every family of the zoo against independent oracles: an untouched copy, and arithmetic by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

import headatlas as ha
from headatlas.model import LayerView, Model, attach
from headatlas.model.families import support_table, tiny_models
from headatlas.model.layouts import layout_of
from tests.model.families import collect, every_family, every_text_model, inputs, opened, tokens, untouched

pytestmark = pytest.mark.filterwarnings("ignore")


@torch.no_grad()
def plain(name: str, **given: Any) -> Any:
    return untouched(name)(**given)


@every_family
@pytest.mark.parametrize("length", [24, 100])
def test_output_is_bit_equal_to_an_untouched_copy(name: str, length: int):
    model, given = opened(name), inputs(name, length=length)
    expected = Model.read(plain(name, **model.uncached(given)))
    assert torch.equal(model.forward(given), expected)
    watched = model.forward(
        given, watch=lambda layer: (layer.rows(torch.tensor([3])), layer.band(0, 2), layer.writes())
    )
    assert torch.equal(watched, expected)
    with torch.no_grad():
        assert torch.equal(Model.read(model.hf(**given)), Model.read(plain(name, **given))), (
            "plain use of an opened model"
        )


class Attentions(TorchFunctionMode):
    """Attention weights of every call of torch's attention, by its definition."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            query, key, _ = args
            self.weights.append((query @ key.mT / query.shape[-1] ** 0.5 + kwargs["attn_mask"]).softmax(-1))
        return func(*args, **kwargs)


@torch.no_grad()
def own_patterns(name: str, given: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Attention weights by stack that an untouched copy reports of its own eager attention."""
    hf = tiny_models.family(name).build()
    if name == "falcon-alibi":  # its eager attention adds the position bias twice, so its default one is the oracle
        with Attentions() as attentions:
            hf(**given)
        return {"decoder": attentions.weights}
    hf.config._attn_implementation = "eager"
    if layout_of(hf) is None:
        hf.set_attn_implementation("eager")
    output = hf(**given, output_attentions=True)
    if getattr(output, "decoder_attentions", None) is not None:
        found = {"encoder": output.encoder_attentions, "decoder": output.decoder_attentions}
        found["cross"] = output.cross_attentions
    else:
        found = {opened(name).stacks[0]: output.attentions}
    return {stack: [layer for layer in layers if layer is not None] for stack, layers in found.items()}


@every_family
def test_patterns_equal_the_models_own(name: str):
    model, given = opened(name), inputs(name)
    found = collect(model, given, lambda layer: layer.pattern.clone())
    for stack, layers in own_patterns(name, given).items():
        ours = [pattern for (where, _), pattern in sorted(found.items()) if where == stack]
        if name == "minimax":  # its linear layers report weights too
            layers = [layers[layer.index] for layer in model.layers]
        assert len(ours) == len(layers)
        for pattern, expected in zip(ours, layers, strict=True):
            torch.testing.assert_close(pattern, expected, atol=2e-5, rtol=1e-3)


@every_family
def test_every_attention_layer_is_seen_at_its_address(name: str):
    model, family = opened(name), tiny_models.family(name)
    seen = collect(model, inputs(name), lambda layer: (layer.q.shape[1], layer.k.shape[1], layer.z.shape[2]))
    assert set(seen) == {(stack, layer) for stack, layers in family.stacks.items() for layer in layers}
    assert set(seen.values()) == {(4, family.groups, 4)}
    assert len(model.heads) == len(set(model.heads)) == 4 * len(seen)
    assert [layer.multiplier for layer in model.layers] == pytest.approx(
        [family.multiplier] * len(model.layers), rel=1e-5
    )
    assert {layer.post_gain is not None for layer in model.layers} == {family.post_norm}
    found = support_table.row_of(family, model)
    assert (found.window, found.sink) == (family.reach, name == "gpt-oss")
    assert (found.between is not None) == (name in ("bitnet", "qwen3-next", "afmoe"))


GAINS = {
    "gemma2": lambda block: 1 + block.post_attention_layernorm.weight,
    "gemma3": lambda block: 1 + block.post_attention_layernorm.weight,
    "olmo2": lambda block: block.post_attention_layernorm.weight,
    "glm4": lambda block: block.post_self_attn_layernorm.weight,
    "afmoe": lambda block: block.post_attention_layernorm.weight,
    "dinov2": lambda block: block.layer_scale1.lambda1,
}


@pytest.mark.parametrize("name", sorted(GAINS))
def test_gains_on_the_way_to_the_residual_stream_are_the_models_own(name: str):
    for layer in opened(name).layers:
        torch.testing.assert_close(layer.post_gain, GAINS[name](layer.block).detach(), atol=1e-3, rtol=1e-3)


@every_family
def test_writes_sum_to_the_projections_output(name: str):
    model, given, real = opened(name), inputs(name), {}
    names = {layer.name: layer for layer in model.layers}
    hooks = [
        layer.projection.register_forward_hook(
            lambda _, __, out, layer=layer: real.setdefault((layer.stack, layer.index), []).append(out)
        )
        for layer in names.values()
    ]
    try:
        ours = collect(
            model,
            given,
            lambda layer: (
                layer.writes().sum(2) + (0 if layer.attention.output_bias() is None else layer.attention.output_bias())
            ),
        )
    finally:
        for hook in hooks:
            hook.remove()
    flat = [out for outs in real.values() for out in outs]
    assert len(flat) == len(ours)
    for expected, found in zip(flat, ours.values(), strict=True):
        torch.testing.assert_close(found, expected.view_as(found), atol=1e-4, rtol=1e-4)


@every_family
def test_bands_columns_and_entries_equal_the_pattern(name: str):
    def watch(layer: Any) -> None:
        own = layer._eager(torch.arange(layer.n_queries), layer.v[..., :1])[1]  # before anything is kept
        examples, _, n_queries, n_keys = own.shape
        queries, keys = torch.arange(n_queries), torch.arange(n_keys)
        torch.testing.assert_close(layer.columns(keys.expand(examples, -1)), own, atol=5e-6, rtol=1e-3)
        torch.testing.assert_close(
            layer.columns(keys[[0, 5]].expand(examples, -1)), own[..., [0, 5]], atol=5e-6, rtol=1e-3
        )
        band = layer.band(-2, 6)
        for i, k in enumerate(range(-2, 7)):
            inside = (queries - k >= 0) & (queries - k < n_keys)
            expected = torch.full((examples, 4, n_queries), torch.nan)
            expected[:, :, inside] = own[:, :, queries[inside], queries[inside] - k]
            torch.testing.assert_close(band[..., i], expected, atol=5e-6, rtol=1e-3, equal_nan=True)
        found = layer.entries(queries[[3, 9]].expand(examples, -1), keys[[1, 8]].expand(examples, -1))
        torch.testing.assert_close(found, own[:, :, [3, 9], [1, 8]], atol=5e-6, rtol=1e-3)
        torch.testing.assert_close(
            layer.reduce(lambda rows, _: rows.square().sum(-1)), own.square().sum(-1), atol=5e-6, rtol=1e-3
        )
        seen.append(layer.index)

    model, seen = opened(name), []
    model.forward(inputs(name), watch=watch)
    assert len(seen) == len(model.layers)


def statistics(model: Model, given: Any) -> dict[tuple[str, int], tuple[Tensor, Tensor, Tensor]]:
    def sink(layer: LayerView) -> Tensor:
        return layer.reduce(lambda rows, _: (rows * layer.valid_keys[:, None, None, : rows.shape[-1]]).square().sum(-1))

    return collect(model, given, lambda layer: (layer.z.clone(), sink(layer), layer.band(0, 4).clone()))


LENGTHS = (24, 17, 9)


@every_text_model
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_no_example(text: str, side: str):
    model, whole = opened(text), tokens(3, 24)
    mask = torch.stack([torch.arange(24) < n if side == "right" else torch.arange(24) >= 24 - n for n in LENGTHS])
    padded = whole.clone()
    for i, n in enumerate(LENGTHS):  # other tokens in the padding: whatever stands there must not matter
        padded[i, mask[i]] = whole[i, :n]
        padded[i, ~mask[i]] = 77
    batch = SimpleNamespace(tokens=padded, mask=mask)
    if side == "left" and model.left_padding is None:
        with pytest.raises(ha.errors.BadInput, match="counts positions from the left"):
            model.forward(batch)
        return
    logits, layers = model.forward(batch), statistics(model, batch)
    for i, n in enumerate(LENGTHS):
        single = whole[i : i + 1, :n]
        torch.testing.assert_close(logits[i, mask[i]], model.forward(single)[0], atol=1e-4, rtol=1e-3)
        for address, (z, sink, band) in statistics(model, single).items():
            ours = layers[address]
            torch.testing.assert_close(ours[0][i, mask[i]], z[0], atol=1e-4, rtol=1e-3)
            torch.testing.assert_close(ours[1][i, :, mask[i]], sink[0], atol=2e-5, rtol=1e-3)
            torch.testing.assert_close(ours[2][i, :, mask[i]], band[0], atol=2e-5, rtol=1e-3, equal_nan=True)


@every_family
def test_half_precision_stays_bounded(name: str):
    hf = tiny_models.family(name).build(dtype=torch.bfloat16)
    given = {
        key: value.to(torch.bfloat16) if value.is_floating_point() else value for key, value in inputs(name).items()
    }
    with torch.no_grad():
        expected = Model.read(hf(**given)).float()
    model = attach(hf)
    watched = model.forward(given, watch=lambda layer: layer.rows(torch.tensor([3]))).float()
    assert (watched - expected).abs().max() <= 1e-2 * expected.abs().max()
