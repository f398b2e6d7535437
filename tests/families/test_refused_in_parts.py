"""Models that open and are refused in part: writes that enter the stream indirectly, several streams, padding of sparse attention."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel
from headatlas.methods.weights.qk_ov import circuits_of
from headatlas.model import Model, attach
from headatlas.model.core.refusals import ChosenKeys
from headatlas.model.families.build import family_row
from headatlas.model.structure.blocks import blocks_of
from headatlas.model.structure.softmax_watch import mixes_tokens
from tests.families import truth
from tests.families.trial import AddVector

pytestmark = pytest.mark.filterwarnings("ignore")


def opened(name: str) -> Model:
    return attach(family_row(name).build())


@pytest.mark.parametrize("name", ["HYV4ForCausalLM", "InklingForCausalLM"])
def test_what_a_head_writes_is_refused_by_name_where_more_than_a_gain_lies_before_the_stream(name: str):
    model = opened(name)
    tokens = torch.randint(5, 180, (1, 8), generator=torch.Generator().manual_seed(0))
    assert model.layers[0].indirect
    with pytest.raises(UnsupportedModel, match=r"in decoder layer 0 .* cannot be read off"):
        circuits_of(model, 0)
    with pytest.raises(UnsupportedModel, match="not what its attention writes plus an MLP"):
        blocks_of(model)
    if model.unembedding is not None:
        with pytest.raises(UnsupportedModel, match="cannot be read off"):
            model.forward(tokens, watch=lambda layer: layer.ov_logits(tokens[:, :1] * 0, tokens[:, :1]))


@pytest.mark.parametrize("name", ["HYV4ForCausalLM", "Qwen4ExpTextModel"])
def test_an_edit_of_one_of_several_residual_streams_is_refused(name: str):
    """Whether they lie along an axis of their own or side by side."""
    model = opened(name)
    layer = model.layers[0]
    with pytest.raises(UnsupportedModel, match="keeps several"):
        model.forward(
            torch.ones(1, 6, dtype=torch.long), edits=[AddVector((layer.stack, layer.index), torch.zeros(()))]
        )


def batch(lengths: tuple[int, ...], seed: int, side: str) -> tuple[list[Tensor], SimpleNamespace]:
    generator = torch.Generator().manual_seed(seed)
    texts = [torch.randint(5, 180, (n,), generator=generator) for n in lengths]
    tokens = torch.zeros(len(texts), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for i, text in enumerate(texts):
        where = slice(-len(text), None) if side == "left" else slice(0, len(text))
        tokens[i, where], mask[i, where] = text, True
    return texts, SimpleNamespace(tokens=tokens, mask=mask)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["DeepseekV32ForCausalLM", "MiniMaxM3VLForCausalLM"])
def test_a_padded_batch_of_a_sparse_model_is_exact_or_refused_for_its_choice_of_keys(name: str, side: str):
    """Sixteen keys, or three blocks of four, are kept: padded texts of twelve are always taken, longer ones where they are clear."""
    model = opened(name)
    refused = 0
    for seed in range(6):
        texts, given = batch((40, 29), seed, side)
        try:
            found = model.forward(given)
        except ChosenKeys:
            refused += 1
            continue
        for i, text in enumerate(texts):
            expected, _ = truth.run(model.hf, {"input_ids": text[None]})
            assert truth.relative(found[i, given.mask[i]], expected[0]) < 1e-4
    assert refused == {"right": 0, "left": 6}[side] if name.startswith("MiniMax") else refused > 0
    if name.startswith("Deepseek"):
        texts, given = batch((20, 12), 0, side)
        found = model.forward(given)
        expected, _ = truth.run(model.hf, {"input_ids": texts[1][None]})
        assert truth.relative(found[1, given.mask[1]], expected[0]) < 1e-4


def test_a_sink_that_is_a_factor_counts_in_attention_weights_as_one_that_is_a_logit_does():
    model = opened("GraniteSWAForCausalLM")
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def look(layer):
        sink = layer.attention.module.sinks
        keys = layer.k.repeat_interleave(layer.n_heads // layer.k.shape[1], 1)
        scores = layer.q @ keys.transpose(-1, -2) * layer.scale + layer.mask
        with_sink = torch.cat([scores, sink.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)], -1).softmax(-1)
        assert layer.has_sink
        seen.append((layer.pattern, with_sink[..., :-1], layer.from_pattern(layer.pattern), layer.z))

    model.forward(torch.randint(5, 180, (2, 24), generator=torch.Generator().manual_seed(1)), watch=look)
    assert len(seen) == len(model.layers)
    for pattern, expected, again, z in seen:
        assert torch.allclose(pattern, expected, atol=1e-5)
        assert torch.allclose(again, z, atol=1e-4)


class Mixing(nn.Module):
    """Attention, along the axis given, or within each token."""

    def __init__(self, axis: int | None) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> tuple[Tensor]:
        if self.axis is None:
            return (x.softmax(-1) * x,)
        y = x.transpose(0, 1) if self.axis == 0 else x
        y = torch.nn.functional.scaled_dot_product_attention(y, y, y)
        return (y.transpose(0, 1) if self.axis == 0 else y,)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_attention_is_told_from_a_softmax_within_a_token_by_what_moves(axis: int | None):
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    assert mixes_tokens(Mixing(axis), ((x,), {})) is (axis is not None)
