"""Smaller checkpoints: what plain transformers loads from the folder gives the logits of a masked copy made with torch alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import transformers

import headatlas as ha
from headatlas.apply.pruning import agreement, smaller, write
from headatlas.apply.pruning.form import forms
from headatlas.edits import Mean
from headatlas.errors import BadInput, StoreError, UnsupportedModel
from headatlas.heads import HeadId
from headatlas.model import attach
from headatlas.model.families.tiny_models import family
from tests.apply.pruning.models import attached, batch, logits, some

# Llama with shared keys, GPT-like fused and partly rotary, norms of q and k, windows, sinks, latent keys, experts, hybrids.
CAUSAL = [
    "llama",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "cohere",
    "olmo",
    "gpt-oss",
    "deepseek-v3",
    "mixtral",
    "lfm2",
]
EVEN = {"phi": [1], "gemma3": [1]}  # else a head of each KV group


def odd(model):
    return [head for head in model.heads if head.head % 2 == 1]


def size(hf):
    return sum(part.numel() for part in hf.parameters())


def compared(model, folder, removed, means=None, auto=transformers.AutoModelForCausalLM):
    """Largest difference from the masked copy, as a share of its largest logit, of the model that `from_pretrained` makes of the folder."""
    plain = auto.from_pretrained(folder).eval()
    tokens = batch(3, 40, seed=5).tokens
    with torch.no_grad():
        found = plain(input_ids=tokens)
    found = found.logits if "logits" in found else found.last_hidden_state
    assert size(plain) < size(model.hf)
    assert type(plain) is type(model.hf)
    masked = logits(model, tokens, removed, means)
    return float((found - masked).abs().max() / masked.abs().max())


@pytest.mark.parametrize("name", CAUSAL)
def test_a_smaller_model_equals_the_masked_one(name, tmp_path):
    model = attached(name)
    found = ha.write_pruned(model, odd(model), tmp_path / "small")
    assert compared(model, tmp_path / "small", odd(model)) < 1e-5
    assert found.heads[1] == found.heads[0] // 2
    assert found.fillers == 0
    assert found.parameters == (
        size(model.hf),
        size(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small")),
    )


@pytest.mark.parametrize("name", ["eurobert", "nomic-bert"])
def test_an_encoder_whose_heads_have_a_width_of_their_own_gets_smaller(name, tmp_path):
    model = attached(name)
    ha.write_pruned(model, odd(model), tmp_path / "small")
    assert compared(model, tmp_path / "small", odd(model), auto=transformers.AutoModel) < 1e-5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("heads", "groups"), [(8, 8), (8, 2), (8, 4), (8, 1)])
def test_heads_gone_anywhere_are_held_in_the_smallest_shape(heads, groups, seed, tmp_path):
    """Irregular sets: other numbers in each layer and group, whole layers gone."""
    model = attach(
        family("llama").build(num_attention_heads=heads, num_key_value_heads=groups, head_dim=8, hidden_size=48)
    )
    gone = some(model, (0.55, 0.7, 0.8, 0.95)[seed], seed)
    left = [[[h.head for h in layer.heads if h not in gone and h.head // (heads // groups) == g] for g in range(groups)]
            for layer in model.layers]  # fmt: skip
    # By trying all shapes: queries a group, and as many groups as the fullest layer then needs.
    costs = []
    for queries in range(1, heads // groups + 1):
        need = max(1, *(sum((len(group) + queries - 1) // queries for group in own) for own in left))
        costs += [n * (queries + 1) for n in range(need, heads + 1) if 48 % (n * queries) == 0]
    if not costs or min(costs) >= heads + groups:
        with pytest.raises((BadInput, UnsupportedModel)):
            ha.write_pruned(model, gone, tmp_path / "small")
        return
    found = ha.write_pruned(model, gone, tmp_path / "small")
    assert found.heads[1] + found.groups[1] == min(costs)
    assert compared(model, tmp_path / "small", gone) < 1e-5
    record = json.loads((tmp_path / "small" / "pruned.json").read_text())
    kept = {HeadId(one["layer"], head) for one in record["layers"] for head in one["heads"] if head is not None}
    assert kept == set(model.heads) - set(gone)


def test_shapes_come_the_smallest_first_and_share_keys_where_that_is_smaller():
    model = attach(family("llama").build(num_attention_heads=6, num_key_value_heads=2, head_dim=8, hidden_size=48))
    whole = forms(model.layers, [head for head in model.heads if head.head >= 3])  # one group of three is left
    assert (whole[0].n_heads, whole[0].n_groups, whole[0].repeated) == (3, 1, 0)
    even = forms(model.layers, [head for head in model.heads if head.head % 3])  # one query of each group is left
    assert (even[0].n_heads, even[0].n_groups) == (2, 2)
    uneven = forms(model.layers, [head for head in model.heads if head.head in (2, 4, 5)])  # two and one
    assert (uneven[0].n_heads, uneven[0].n_groups, uneven[0].fillers) == (4, 2, 3)
    costs = [form.n_heads + form.n_groups for form in uneven]
    assert costs == sorted(costs)
    assert max(costs) < 8
    assert any(form.repeated for form in uneven)


@pytest.mark.parametrize("name", ["llama", "phi", "gpt-oss", "gemma3"])
def test_means_lie_in_the_output_bias(name, tmp_path):
    model = attached(name)
    means = Mean.over(model, model.heads, batch(4)).values
    ha.write_pruned(model, odd(model), tmp_path / "small", means=means)
    assert compared(model, tmp_path / "small", odd(model), means) < 1e-5
    assert (
        float(
            (logits(model, batch().tokens, odd(model)) - logits(model, batch().tokens, odd(model), means)).abs().max()
        )
        > 1e-2
    )


def test_means_are_refused_where_nothing_can_hold_them(tmp_path):
    model = attached("qwen2")  # q, k and v have biases, the output has none
    means = Mean.over(model, model.heads, batch(4)).values
    with pytest.raises(UnsupportedModel, match="--removal zero"):
        ha.write_pruned(model, odd(model), tmp_path / "small", means=means)
    with pytest.raises(UnsupportedModel, match="--removal zero"):
        smaller.demand_smaller(model, bias=True)
    smaller.demand_smaller(model)
    some_layers = {key: value for key, value in means.items() if key[1] < 1}
    with pytest.raises(BadInput, match="no means for layer 1"):
        ha.write_pruned(attached("llama"), odd(model), tmp_path / "small", means=some_layers)


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "bloom", "bert", "opt", "falcon", "modernbert"])
def test_families_that_tie_widths_to_numbers_are_refused_before_any_work(name):
    with pytest.raises(UnsupportedModel, match="width of a head follows") as caught:
        smaller.demand_smaller(attached(name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("olmo2", "q_norm"), ("qwen3-next", "more than queries"), ("t5", "stacks"), ("bitnet", "2 heads")],
)
def test_what_hangs_on_all_heads_at_once_is_refused_and_nothing_is_left(name, said, tmp_path):
    model = attached(name)
    with pytest.raises(UnsupportedModel, match=said):
        ha.write_pruned(model, odd(model), tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_without_any_head_one_of_zeros_is_left(tmp_path):
    model = attached("llama")
    found = ha.write_pruned(model, model.heads, tmp_path / "small")
    assert (found.heads[1], found.fillers, found.kept) == (1, 3, 0)
    assert compared(model, tmp_path / "small", model.heads) < 1e-5


def test_quantised_weights_and_adapters_are_not_cut(tmp_path, monkeypatch):
    model = attach(family("llama").build())
    monkeypatch.setattr(model.hf, "is_quantized", True, raising=False)
    with pytest.raises(UnsupportedModel, match="quantised"):
        ha.write_pruned(model, odd(model), tmp_path / "small")
    monkeypatch.undo()
    model.hf.model.layers[0].mlp.adapter = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedModel, match=r"mlp\.adapter.*Merge adapters"):
        ha.write_pruned(model, odd(model), tmp_path / "small")


def test_where_rounding_moves_logits_both_are_compared_in_double(tmp_path, monkeypatch):
    model = attached("llama")
    monkeypatch.setattr(agreement, "SHARE", 1e-9)  # as if these were logits that rounding moves far
    means = Mean.over(model, model.heads, batch(4)).values
    found = ha.write_pruned(model, odd(model), tmp_path / "small", means=means)
    assert found.agreement.difference > 0
    assert found.agreement.in_double <= found.agreement.rounding
    assert "double" in str(found.agreement)
    assert compared(model, tmp_path / "small", odd(model), means) < 1e-5


def test_heads_of_one_full_layer_have_no_smaller_shape(tmp_path):
    model = attached("llama")
    with pytest.raises(BadInput, match="layer 2 keeps 4 of its 4 in 2 KV groups"):
        ha.write_pruned(model, "0.* 1.*", tmp_path / "small")
    with pytest.raises(BadInput, match="No head is removed"):
        ha.write_pruned(model, [], tmp_path / "small")
    with pytest.raises(BadInput, match=r"no head 0\.9"):
        ha.write_pruned(model, "0.9", tmp_path / "small")


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "small").mkdir()
    with pytest.raises(StoreError, match="exists already"):
        ha.write_pruned(attached("llama"), odd(attached("llama")), tmp_path / "small")


def test_a_folder_that_does_not_equal_the_masked_model_gets_no_name(tmp_path, monkeypatch):
    model = attached("llama")

    def spoiled(*arguments):
        found = smaller.smaller_model(*arguments)
        with torch.no_grad():
            found.hf.model.layers[1].self_attn.o_proj.weight[0, 0] += 0.5
        return found

    monkeypatch.setattr(write, "smaller_model", spoiled)
    with pytest.raises(UnsupportedModel, match="other logits"):
        ha.write_pruned(model, odd(model), tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_written_in_the_type_that_they_came_in(tmp_path):
    hf = family("llama").build()
    for part in hf.parameters():  # as a bfloat16 checkpoint is opened on a CPU
        part.data = part.data.bfloat16().float()
    model = attach(hf)
    assert ha.write_pruned(model, odd(model), tmp_path / "small").dtype == "bfloat16"
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small").dtype == torch.bfloat16
    again = ha.load(tmp_path / "small", dtype="float32")
    tokens = batch().tokens
    assert float((again.forward(tokens) - logits(model, tokens, odd(model))).abs().max()) < 1e-5
    half = attach(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small", dtype=torch.bfloat16))
    assert ha.write_pruned(half, "0.1 1.0 2.1", tmp_path / "half").dtype == "bfloat16"
    assert ha.write_pruned(attached("llama"), odd(model), tmp_path / "float").dtype == "float32"


def test_the_opened_model_stays_as_it_was(tmp_path):
    model = attach(family("llama").build())
    before = model.fingerprint()
    shape = (model.hf.config.num_attention_heads, model.hf.config.attention_bias)
    means = Mean.over(model, model.heads, batch(4)).values
    ha.write_pruned(model, odd(model), tmp_path / "small", means=means)
    assert model.fingerprint() == before
    assert (model.hf.config.num_attention_heads, model.hf.config.attention_bias) == shape
    model.forward(batch().tokens)


@pytest.mark.slow
def test_a_program_without_headatlas_loads_the_folder_and_generates(tmp_path):
    model = attached("gemma3")
    ha.write_pruned(model, odd(model), tmp_path / "small")
    program = (
        "import sys, torch, transformers\n"
        f"m = transformers.AutoModelForCausalLM.from_pretrained({str(tmp_path / 'small')!r})\n"
        "assert not any(name.split('.')[0] == 'headatlas' for name in sys.modules)\n"
        "x = torch.arange(3, 23)[None]\n"
        "print(m.generate(x, max_new_tokens=8, do_sample=False, eos_token_id=None)[0, 20:].tolist())\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    tokens = torch.arange(3, 23)[None]
    for _ in range(8):  # without a cache, each step anew
        tokens = torch.cat([tokens, logits(model, tokens, odd(model))[:, -1:].argmax(-1)], 1)
    assert json.loads(out) == tokens[0, 20:].tolist()
