"""Sinks of two kinds: every number against plain hooks on the model's own eager outputs, what chance refuses, what padding changes."""

import dataclasses

import numpy as np
import pytest
import torch

from headatlas.detectors import _sinks as module
from headatlas.detectors.attention_sink import attention_sink
from headatlas.detectors.broadcast_sink import broadcast_sink
from headatlas.detectors.inactive import inactive
from headatlas.detectors.nop_sink import nop_sink
from headatlas.lab.head import Head
from headatlas.lab.planted import plant
from headatlas.lab.planting import find_planting
from headatlas.lab.spec import PlantSpec
from headatlas.mining.scan import scan
from headatlas.model import attach
from headatlas.task import Batch
from tests import toys


def text(n: int = 3, length: int = 12, left: int = 0, most: int = 150) -> Batch:
    tokens = torch.randint(5, most, (n, length), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    return batch.padded(left=left) if left else batch


def by_hooks(hf, tokens: torch.Tensor) -> list[list[dict[str, float]]]:
    """[layer][head] of one text: values from hooks on the projections, attention from the model's own eager outputs, loops for the rest."""
    config, kept, hooks = hf.config, {}, []
    heads = config.num_attention_heads
    llama = hasattr(hf, "model")
    blocks = hf.model.layers if llama else hf.transformer.h
    for i, block in enumerate(blocks):
        module_ = block.self_attn.v_proj if llama else block.attn.c_attn
        hooks.append(module_.register_forward_hook(lambda _, __, out, i=i: kept.__setitem__(i, out[0].detach())))
    config._attn_implementation = "eager"
    with torch.no_grad():
        attentions = hf(tokens[None], output_attentions=True).attentions
    for hook in hooks:
        hook.remove()
    found = []
    for i, block in enumerate(blocks):
        found.append([])
        weight = block.self_attn.o_proj.weight.T if llama else block.attn.c_proj.weight  # [head x d, d_model]
        values = kept[i] if llama else kept[i][:, -config.hidden_size :]
        d = weight.shape[0] // heads
        groups = values.shape[1] // d
        for h in range(heads):
            attention = attentions[i][0, h].double().numpy()
            g = h // (heads // groups)
            u = (values[:, g * d : (g + 1) * d] @ weight[h * d : (h + 1) * d]).detach().double().numpy()
            sink = int(attention.mean(0).argmax())
            others = [j for j in range(len(u)) if j != sink]
            norms = np.linalg.norm(u, axis=1)

            def ratio(j, norms=norms):
                return norms[j] / max(np.mean([norms[k] for k in range(len(norms)) if k != j]), 1e-12)

            routed = np.mean([row[sink] >= 0.5 for row in attention])
            found[-1].append(
                {
                    "routed": routed,
                    "ratio": ratio(sink),
                    "writes": rank(attention @ u),
                    "values": rank(u[others]),
                    "small": np.mean([ratio(j) <= 0.2 for j in others]),
                }
            )
    return found


def rank(rows: np.ndarray) -> float:
    sizes = np.linalg.svd(rows, compute_uv=False)
    return float((sizes**2).sum() / sizes[0] ** 2) if sizes[0] else np.inf


@pytest.mark.parametrize("kind", ["gqa", "mha", "gpt2"])
def test_numbers_are_those_of_plain_hooks(kind: str):
    model, batch, told = toys.model(kind), text(), []

    def watch(layer):
        sinks = module.Sinks(layer)
        every = torch.ones_like(sinks.rests)
        found = [of(every).view(sinks.rests.shape) for of in (sinks.ratio, sinks.write_rank, sinks.value_rank)]
        told.append(torch.stack([sinks.routed, *found], -1))

    model.forward(batch, watch=watch)
    fresh = toys.MAKERS[kind]()  # of the same seed, so that nothing of ours is in it
    for e, tokens in enumerate(batch.tokens):
        for i, layer in enumerate(by_hooks(fresh, tokens)):
            own = torch.tensor([[one[name] for name in ("routed", "ratio", "writes", "values")] for one in layer])
            torch.testing.assert_close(told[i][e].double(), own.double(), atol=2e-4, rtol=2e-4)


def test_values_pass_the_gain_of_a_norm_behind_the_block():
    hf = toys.MAKERS["window"]()  # Gemma 3
    with torch.no_grad():
        for block in hf.model.layers:
            block.post_attention_layernorm.weight.normal_(generator=torch.Generator().manual_seed(1))
    told = []

    def watch(layer):
        gain = 1 + hf.model.layers[layer.index].post_attention_layernorm.weight
        written = torch.einsum("ehkd,hdm->ehkm", layer.repeat(layer.v), layer.W_O) * gain
        every = torch.ones(written.shape[:2], dtype=torch.bool)
        told.append((module.Sinks(layer).values(every).norm(dim=-1), written.norm(dim=-1).flatten(0, 1)))

    attach(hf).forward(text(), watch=watch)
    for got, wanted in told:
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    assert len(told) == 2


@pytest.mark.parametrize(("detector", "name"), [(nop_sink, "nop-sink"), (broadcast_sink, "broadcast-sink")])
@pytest.mark.parametrize("seed", [0, 1])  # a GPT-2 and a Llama
def test_scores_and_chance_are_those_of_plain_hooks_on_planted_models(detector, name: str, seed: int):
    made = find_planting(name).make(seed)
    batch = detector.task(made.model.tokenizer, 4, seed)
    got = detector.measure(made.model, batch)
    for e, tokens in enumerate(batch.tokens):
        lines = [one for layer in by_hooks(made.model.hf, tokens) for one in layer]
        for h, one in enumerate(lines):
            rests = one["routed"] >= 0.9
            if name == "nop-sink":
                score, chance = rests and one["ratio"] <= 0.2, rests * one["small"]
            else:
                asked = rests and one["ratio"] >= 0.5
                score, chance = asked and one["writes"] <= 1.5, asked and one["values"] <= 1.5
            if made.model.heads[h] not in made.look_alikes:  # those have values of rounding error alone, or none
                assert float(got.values[e, h]) == float(score)
                assert float(got.control[e, h]) == pytest.approx(float(chance), abs=1e-6)
    positive = [made.model.heads.index(head) for head in made.positives]
    assert got.values[:, positive].min() == 1
    assert got.control[:, positive].max() == 0


def test_the_two_kinds_of_sink_are_told_apart_and_neither_is_an_inactive_head():
    """Both rest on the first token, which is all that `attention-sink` asks."""
    handing, resting, silent = Head(0, 0, "broadcaster"), Head(0, 1, "window", strength=0.2), Head(0, 2, "dormant")
    planted = plant(PlantSpec((handing, resting, silent), noise=0.002), architecture="llama", n_layers=1, seed=3)
    model = attach(planted.model)
    batch = text(4, 60, most=200)
    batch.tokens[:, 0] = planted.words.bos
    found = scan(
        model, [attention_sink, inactive, nop_sink, broadcast_sink], dataclasses.replace(batch, control=batch)
    ).scores
    means = {name: one.values.mean(0) for name, one in found.items()}
    assert means["attention-sink"][:3].min() > 0.7
    np.testing.assert_array_equal(means["nop-sink"], [0, 1, 1, 0])
    np.testing.assert_array_equal(means["broadcast-sink"], [1, 0, 0, 0])
    # The silent head has no value anywhere: any token would do for its sink.
    np.testing.assert_array_equal(found["nop-sink"].control.mean(0)[:3], [0, 0, 1])
    assert means["inactive"][2] == pytest.approx(1)
    assert means["inactive"][1] < 0.75


def test_a_head_that_can_write_one_direction_only_is_not_low_rank_by_its_sink():
    planted = plant(PlantSpec((Head(0, 0, "broadcaster"),), noise=0.002), architecture="gpt2", n_layers=1, seed=3)
    batch = text(4, 60, most=200)
    batch.tokens[:, 0] = planted.words.bos
    before = broadcast_sink.measure(attach(planted.model), batch)
    assert (before.values[:, 0].min(), before.control[:, 0].max()) == (1, 0)
    weight = planted.model.transformer.h[0].attn.c_proj.weight
    with torch.no_grad():
        weight[:32] = weight[:32].norm(dim=1, keepdim=True) * torch.nn.functional.normalize(
            torch.ones(weight.shape[1]), dim=0
        )
    after = broadcast_sink.measure(attach(planted.model), batch)
    assert (after.values[:, 0].min(), after.control[:, 0].min()) == (1, 1)


@pytest.mark.parametrize("name", ["nop-sink", "broadcast-sink"])
def test_scores_do_not_depend_on_padding_or_on_the_other_examples(name: str):
    made = find_planting(name).make(1)  # a Llama, which may be padded on the left
    detector = {"nop-sink": nop_sink, "broadcast-sink": broadcast_sink}[name]
    batch = detector.task(made.model.tokenizer, 3, 0)
    whole = detector.measure(made.model, batch)
    for other, rows in (
        (batch.padded(left=5), [0, 1, 2]),
        (batch.padded(right=5), [0, 1, 2]),
        (batch.rows([1]), [1]),
    ):
        got = detector.measure(made.model, other)
        positives = [made.model.heads.index(head) for head in made.positives]
        torch.testing.assert_close(got.values, whole.values[rows])
        torch.testing.assert_close(got.control[:, positives], whole.control[rows][:, positives])
    assert whole.values.sum() > 0


def test_stable_rank_counts_directions_of_equal_size():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 3, 5):
        turn = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0][:n]
        assert module.stable_rank(4 * turn[None])[0] == pytest.approx(n, rel=1e-5)
    assert module.stable_rank(torch.zeros(1, 3, 2)).isinf().all()
