"""Own text through every door gets what the tokenizer gives it, ids stay as they are; heads are read in every form."""

import json

import numpy as np
import pytest
import torch
from tokenizers import processors

import headatlas as ha
from headatlas.errors import BadInput
from headatlas.methods.weights.copying import copy_scores
from headatlas.prompts_file import read_prompts
from tests import toys

TEXT = "The river was wide."


def opened(folder, template: str = "", *, hf=None, **options) -> ha.Model:
    """A toy whose tokenizer adds what the template says."""
    toys.with_tokenizer(hf or toys.llama(vocab_size=300), folder, encoder=False)
    if template:
        from transformers import PreTrainedTokenizerFast

        tok = PreTrainedTokenizerFast.from_pretrained(folder)
        marks = [(mark, tok.convert_tokens_to_ids(mark)) for mark in ("[BOS]", "[EOS]", "[CLS]")]
        tok.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=marks)
        tok.save_pretrained(folder)
    return ha.load(str(folder), **options)


def truth(model: ha.Model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits


@pytest.mark.parametrize("template", ["[BOS] $A", "[BOS] [CLS] $A"])
def test_every_door_gives_what_the_tokenizer_gives(tmp_path, template):
    model = opened(tmp_path / "model", template)
    tok = model.tokenizer._hf
    expected = truth(model, tok(TEXT).input_ids)
    torch.testing.assert_close(model.forward(TEXT), expected)
    assert model.read_as == model.tokenizer.bos_policy
    assert "the tokenizer adds" in model.read_as
    two = model.forward([TEXT, "The river"])
    torch.testing.assert_close(two[:1], expected, rtol=1e-4, atol=1e-5)
    ids = tok("The river").input_ids
    torch.testing.assert_close(two[1:, : len(ids)], truth(model, ids), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.forward({"input_ids": [tok(TEXT).input_ids]}), expected)
    (tmp_path / "p.jsonl").write_text(json.dumps({"clean": TEXT, "answer": " a", "wrong": " t"}))
    (tmp_path / "l.jsonl").write_text("\n".join(json.dumps({"text": TEXT, "label": x}) for x in "ab"))
    for file in ("p.jsonl", "l.jsonl"):
        batch = read_prompts(tmp_path / file, model.tokenizer)
        assert batch.tokens[0].tolist() == tok(TEXT).input_ids
        assert batch.facts["start_end"] == model.tokenizer.bos_policy


def test_a_text_with_its_own_start_token_gets_no_second_and_the_result_says_so(tmp_path):
    model = opened(tmp_path / "model", "[BOS] $A")
    expected = truth(model, model.tokenizer._hf(TEXT).input_ids)
    torch.testing.assert_close(model.forward("[BOS]" + TEXT), expected)
    assert model.read_as.endswith("the text begins with it already: put once")
    model.forward(["[BOS]" + TEXT, TEXT])
    assert model.read_as.endswith("1 of 2 texts begin with it already: put once")
    (tmp_path / "p.jsonl").write_text(json.dumps({"clean": "[BOS]" + TEXT, "answer": " a", "wrong": " t"}))
    batch = read_prompts(tmp_path / "p.jsonl", model.tokenizer)
    assert batch.tokens[0].tolist() == model.tokenizer._hf(TEXT).input_ids


def test_ids_are_taken_as_they_are_and_the_result_says_so(tmp_path):
    model = opened(tmp_path / "model", "[BOS] $A")
    ids = model.tokenizer.encode(TEXT)
    expected = truth(model, ids)
    for given in (torch.tensor([ids]), [ids], ids, np.array([ids]), {"input_ids": torch.tensor([ids])}):
        torch.testing.assert_close(model.forward(given), expected)
        assert model.read_as == "ids as given, no start or end token added"
    ragged = model.forward([ids, ids[:3]])
    torch.testing.assert_close(ragged[1:, :3], truth(model, ids[:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "'' has no tokens"),
        ([TEXT, ""], "Text 2: '' has no tokens"),
        ([], "no tokens|must be"),
        ([[]], "There are no tokens"),
        ([[5, 6], []], "There are no tokens"),
        (torch.zeros(0, 4, dtype=torch.long), "must be"),
        (torch.zeros(1, 0, dtype=torch.long), "must be"),
        (torch.zeros(1, 2, 2, dtype=torch.long), "must be"),
        (torch.ones(1, 4), "whole numbers, got float32"),
        (torch.ones(1, 4, dtype=torch.bool), "whole numbers, got bool"),
        ([1.5, 2.0], "whole numbers, got float64"),
        ([TEXT, 5], "cannot be read as token ids|whole numbers|list of token ids"),
        (7.0, "must be|whole numbers"),
        ({"input_ids": [[5, 6], [7]]}, "rows of different lengths"),
        ({"input_ids": torch.tensor([[5, 999]])}, "outside the vocabulary"),
        ({"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.ones(1, 3)}, "attention_mask has shape"),
        ({"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.zeros(1, 2)}, "all padding"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_words(tmp_path_factory, given, told):
    with pytest.raises(BadInput, match=told):
        shared(tmp_path_factory).forward(given)


_SHARED: list[ha.Model] = []


def shared(factory) -> ha.Model:
    if not _SHARED:
        _SHARED.append(opened(factory.mktemp("own") / "model", "[BOS] $A"))
    return _SHARED[0]


FORMS = [
    "0.1",
    (0, 1),
    ha.HeadId(0, 1),
    ["0.1"],
    [(0, 1)],
    [ha.HeadId(0, 1)],
    [[0, 1]],
    [0, 1],
    "L0H1",
    (np.int64(0), 1),
]


def readers(model: ha.Model, folder):
    """Name -> what a public function makes of heads."""
    (folder / "p.jsonl").write_text(
        json.dumps({"clean": "The river", "corrupted": "The water", "answer": " a", "wrong": " t"})
    )
    given = ha.Prompts(prompts=str(folder / "p.jsonl"), force=True)
    return {
        "edit": lambda heads: list(ha.Zero(heads).heads),
        "ablate": lambda heads: [one for group in ha.ablate(model, given, heads, edit="zero").head_sets for one in group],
        "lens": lambda heads: [ha.HeadId.parse(row["head"]) for row in ha.lens(model, TEXT, heads=heads)["heads"]],
        "copying": lambda heads: list(copy_scores(model, torch.tensor([10, 11, 12]), heads=heads)[0].heads),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["edit", "ablate", "lens", "copying"])
def test_public_functions_read_heads_in_every_form_and_refuse_floats(tmp_path_factory, tmp_path, name):
    read = readers(shared(tmp_path_factory), tmp_path)[name]
    for given in FORMS:
        assert read(given) == [(0, 1, "decoder")]
    for wrong, told in (
        (0.1, "0.1"),
        ([0.1], "9.1 and 9.10 would be the same"),
        ("", "names no heads"),
        ([], "names no heads"),
        ((0, 1.0), "head"),
    ):
        with pytest.raises(BadInput, match=told):
            read(wrong)


def test_heads_in_a_group_change_together(tmp_path_factory, tmp_path):
    model = shared(tmp_path_factory)
    (tmp_path / "p.jsonl").write_text(json.dumps({"clean": "The river", "answer": " a", "wrong": " t"}))
    given = ha.Prompts(prompts=str(tmp_path / "p.jsonl"), force=True)
    found = ha.ablate(model, given, [("0.1", (0, 2)), "1.0"], edit="zero")
    assert found.head_sets == ((ha.HeadId(0, 1), ha.HeadId(0, 2)), (ha.HeadId(1, 0),))


@pytest.mark.parametrize("name", ["attention_maks", "input_idss", "postion_ids"])
def test_a_misspelt_input_is_named(name: str):
    """transformers models take any keyword, and leave alone what they do not know."""
    with pytest.raises(BadInput, match=f"takes no {name}. Did you mean"):
        toys.model("gqa").forward({"input_ids": torch.arange(4)[None], name: torch.ones(1, 4)})


def test_inputs_of_another_kind_of_model_are_refused():
    with pytest.raises(BadInput, match="LlamaForCausalLM takes none of pixel_values"):
        toys.model("gqa").forward({"pixel_values": torch.ones(1, 3, 4, 4)})
