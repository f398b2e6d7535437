"""Controls keep a model's shape and statistics and lose what it does."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from headatlas.errors import SourceError, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.lab.controls import untrained, weight_shuffled
from headatlas.lab.head import Head
from headatlas.lab.measure import attend, logits_of, loss_of
from headatlas.lab.planted import plant
from headatlas.lab.probe import probe
from headatlas.lab.spec import PlantSpec


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def planted(request):
    heads = (Head(0, 0, "previous"), Head(1, 0, "induction"))
    return plant(PlantSpec(heads), architecture=request.param, vocab=128)


def sizes(model):
    return {name: weight.shape for name, weight in model.state_dict().items()}


def test_an_untrained_model_has_the_shape_and_none_of_the_weights(planted, tmp_path):
    folder = planted.save(tmp_path / "planted")
    random = untrained(folder, seed=1)
    assert type(random) is type(planted.model)
    assert sizes(random) == sizes(planted.model)
    material = probe("repeated", planted.words, 256, 8, 0)
    assert loss_of(logits_of(random, material.tokens), material) > 4.0
    again, other = untrained(folder, seed=1), untrained(random.config, seed=2)
    assert torch.equal(again.get_input_embeddings().weight, random.get_input_embeddings().weight)
    assert not torch.equal(other.get_input_embeddings().weight, random.get_input_embeddings().weight)


def test_making_an_untrained_model_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    untrained(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=32))
    assert torch.equal(torch.rand(3), expected)


def test_shuffling_keeps_the_entries_and_destroys_the_heads(planted):
    before = {name: weight.clone() for name, weight in planted.model.state_dict().items()}
    shuffled = weight_shuffled(planted.model, seed=0)
    moved = 0
    for name, weight in shuffled.state_dict().items():
        assert torch.equal(planted.model.state_dict()[name], before[name])
        assert torch.equal(weight.flatten().sort().values, before[name].flatten().sort().values)
        moved += not torch.equal(weight, before[name])
        assert torch.equal(weight, before[name]) or "attn" in name
    # Biases of planted GPT-2 models are all zero, so that only the two weights of each layer can move.
    assert moved == {"gpt2": 4, "llama": 8}[planted.model.config.model_type]
    material = probe("repeated", planted.words, 256, 8, 0)
    patterns, logits = attend(shuffled, material.tokens)
    back = torch.arange(1, material.tokens.shape[1])
    assert patterns[0][:, 0, back, back - 1].mean() < 0.3
    assert loss_of(logits, material) > 3.0
    assert HeadId(1, 0) in planted.truth


def test_shuffling_keeps_each_part_of_a_fused_matrix_apart():
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32, vocab_size=16)
    )
    fused = model.gpt_neox.layers[0].attention.query_key_value.weight
    with torch.no_grad():
        fused.copy_(torch.arange(6).repeat_interleave(16)[:, None].expand(96, 32).float())
    after = weight_shuffled(model).gpt_neox.layers[0].attention.query_key_value.weight
    assert torch.equal(after, fused)  # constant parts stay constant: nothing crossed from one part into another


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"no config\.json"):
        untrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nothing-known"}')
    with pytest.raises(UnsupportedModel, match="nothing-known"):
        untrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": "two"}')
    with pytest.raises(SourceError, match="cannot be read"):
        untrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="NoSuchModel"):
        untrained(GPT2Config(architectures=["NoSuchModel"]))
    headless = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=32))
    headless.transformer.h = torch.nn.ModuleList()
    with pytest.raises(UnsupportedModel, match="no module"):
        weight_shuffled(headless)
