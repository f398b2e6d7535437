"""The list of text classes, the tiny models, their tags, and the page about them."""

from __future__ import annotations

import json

import pytest
import torch

from headatlas.errors import UnknownName
from headatlas.model.families import every_class
from headatlas.model.families.build import LENGTH, family_row, sample
from headatlas.model.families.classes import listed
from headatlas.model.families.mechanisms import mechanisms
from headatlas.model.families.overrides import OVERRIDES, VARIANTS
from headatlas.model.families.shrink import per_layer
from tests.families import truth

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_list_comes_from_transformers_and_overrides_name_classes_in_it():
    assert {
        "LlamaForCausalLM",
        "T5ForConditionalGeneration",
        "BertForMaskedLM",
        "Qwen3VLForConditionalGeneration",
    } <= set(listed())
    assert listed()["LlamaForCausalLM"].reads_text
    assert not listed()["ViTModel"].reads_text, "it reads images"
    assert not listed()["CLIPModel"].reads_text, "it pairs texts with images"
    assert set(OVERRIDES) | {variant.architecture for variant in VARIANTS} <= set(listed())


def test_unknown_rows_are_named_with_the_nearest():
    with pytest.raises(UnknownName, match=r"no class called 'GPT2HeadModel'\. Did you mean"):
        family_row("GPT2HeadModel")


def test_lists_by_layer_keep_every_kind_of_layer():
    assert per_layer(["linear"] * 3 + ["full"] + ["linear"] * 3 + ["full"]) == ["linear", "full", "linear", "full"]
    assert per_layer(list(range(72))) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "DeepseekV32ForCausalLM", "T5ForConditionalGeneration"])
def test_a_tiny_model_is_small_the_same_each_time_and_its_sample_passes_every_limit(name: str):
    first, second = family_row(name).build(), family_row(name).build()
    assert sum(parameter.numel() for parameter in first.parameters()) < 2_000_000
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    given = sample(first)
    assert given["input_ids"].shape == (2, LENGTH)
    limits = [getattr(first.config, field, None) for field in ("index_topk", "sliding_window", "num_buckets")]
    assert all(limit is None or limit < LENGTH for limit in limits)


@pytest.mark.parametrize(
    "name",
    [
        "DeepseekV32ForCausalLM",
        "MiniMaxM3VLForCausalLM",
        "Dots3NoteForCausalLM",
        "GptOssForCausalLM",
        "Llama4ForCausalLM",
    ],
)
def test_masks_cut_within_the_sample(name: str):
    """Sparse attention, windows and chunks leave out keys that the last query could see; otherwise nothing is tested."""
    eager = truth.eager_copy(family_row(name).build())
    _, seen = truth.run(eager, sample(eager))
    assert min(int((call.weights[0, 0, -1] > 0).sum()) for call in seen.calls) < LENGTH - 20


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("LlamaForCausalLM", ["grouped"]),
        ("DeepseekV32ForCausalLM", ["low-rank (MLA)", "sparse top-k", "experts"]),
        ("GptOssForCausalLM", ["grouped", "window", "sink logit", "experts"]),
        ("GraniteSWAForCausalLM", ["grouped", "window", "sink factor"]),
        ("BambaForCausalLM", ["grouped", "hybrid: state space"]),
        ("FalconForCausalLM:alibi", ["ALiBi"]),
    ],
)
def test_tags_say_what_attention_is_made_of(name: str, tags: list[str]):
    assert list(mechanisms(family_row(name).build())) == tags


def test_every_row_asked_for_is_answered_and_stands_on_the_page():
    rows = every_class.chosen(["LlamaForCausalLM", "MptForCausalLM"])
    found = list(every_class.answers(rows))
    assert [line.status for line in found] == ["works", "refused"]
    assert "MptAttention" in found[1].why
    page = every_class.section(found)
    assert "### 1 classes that work" in page
    assert "| `LlamaForCausalLM` | causal LM | decoder | grouped |" in page
    assert json.loads(json.dumps(every_class.as_json(found)))["classes"][0]["stacks"] == ["decoder"]


def test_a_class_that_stumbles_is_told_apart_from_one_that_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headatlas.model.loading.attach", lambda hf, **_: 1 / 0)
    (line,) = every_class.answers(every_class.chosen(["LlamaForCausalLM"]))
    assert (line.status, line.why) == ("fails", "ZeroDivisionError: division by zero")
    assert "### 1 classes that fail" in every_class.section([line])
