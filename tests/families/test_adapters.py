"""Adapters of PEFT against the merged model, where the package is installed; what is no adapter of weights is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import headatlas as ha
from headatlas.errors import UnsupportedModel
from headatlas.heads import HeadId
from headatlas.mining.atlas_json import ModelFacts
from headatlas.model import attach
from headatlas.model.families.tiny_models import FAMILIES
from tests.families.test_wrapped import BATCH, WEIGHED, same
from tests.families.wrappers import METHODS

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def llama() -> nn.Module:
    return FAMILIES["llama"].build()


def low_rank(**more: Any) -> Any:
    given = {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION, "init_lora_weights": False, **more}
    return peft.LoraConfig(**given)


KINDS = {
    "LoRA": lambda: low_rank(lora_dropout=0.1),
    "rank-stabilised": lambda: low_rank(use_rslora=True, target_modules=["o_proj", "lm_head"]),
    "DoRA": lambda: low_rank(use_dora=True),
    "modules to save": lambda: low_rank(target_modules=["o_proj"], modules_to_save=["lm_head"]),
    "IA3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj", "o_proj"], feedforward_modules=["o_proj"], init_ia3_weights=False
    ),
    "IA3 on outputs": lambda: peft.IA3Config(target_modules=ATTENTION, feedforward_modules=[], init_ia3_weights=False),
    "OFT": lambda: peft.OFTConfig(target_modules=["q_proj", "o_proj"], oft_block_size=8, init_weights=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapted_model_is_its_merged_one(kind: str):
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(llama(), KINDS[kind]())
    plain = copy.deepcopy(wrapped).merge_and_unload()
    model, twin = attach(wrapped), attach(plain)
    for what in METHODS if kind == "LoRA" else WEIGHED:
        assert same(METHODS[what](model), METHODS[what](twin), 1e-3), what
    heads = [HeadId(1, head) for head in range(4)]
    for cut in (heads, heads[:1]):
        assert same(model.forward(BATCH, edits=[ha.Zero(cut)]), twin.forward(BATCH, edits=[ha.Zero(cut)]))


def test_the_chosen_adapter_counts_and_none_while_they_are_off():
    torch.manual_seed(0)
    hf = llama()
    base = attach(copy.deepcopy(hf))
    hf.add_adapter(low_rank(), "one")
    hf.add_adapter(low_rank(target_modules=["o_proj"]), "two")
    hf.eval()
    model, found = attach(hf), {}
    for names in (["one"], ["two"], ["one", "two"]):
        hf.set_adapter(names)
        found[str(names)] = [METHODS[what](model) for what in WEIGHED]
        with torch.no_grad():
            assert torch.equal(model.forward(BATCH), hf(input_ids=BATCH).logits)
        assert [one["active"] for one in ModelFacts.of(model).adapters] == ["one" in names, "two" in names]
    hf.disable_adapters()
    off = [METHODS[what](model) for what in WEIGHED]
    assert all(same(a, METHODS[what](base), 1e-6) for a, what in zip(off, WEIGHED, strict=True))
    kinds = [*found.values(), off]
    assert not any(same(a[i], b[i]) for a in kinds for b in kinds if a is not b for i in range(len(WEIGHED)))
    assert not any(one["active"] for one in ModelFacts.of(model).adapters)


def test_the_atlas_names_adapters_and_the_weights_hash_tells_them_apart():
    first, second = (attach(peft.get_peft_model(llama(), low_rank(r=rank))) for rank in (4, 8))
    (named,) = ModelFacts.of(second).adapters
    assert (named["name"], named["type"], named["r"], named["lora_alpha"]) == ("default", "LORA", 8, 8)
    assert named["targets"] == sorted(ATTENTION)
    assert first.fingerprint() != second.fingerprint() != attach(llama()).fingerprint()
    assert ModelFacts.of(attach(llama())).adapters == ()


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_learned_tokens_are_refused(kind: str):
    wrapped = peft.get_peft_model(llama(), getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(UnsupportedModel, match="learned tokens"):
        attach(wrapped)


def test_learned_prompts_within_the_attention_are_refused():
    given = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=4, adapter_layers=2)
    with pytest.raises(UnsupportedModel, match="without that adapter"):
        attach(peft.get_peft_model(llama(), given))
