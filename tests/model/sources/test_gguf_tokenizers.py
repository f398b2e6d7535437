"""Tokenizers of GGUF files: text is cut by the rule that the file names, or the file is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from headatlas.errors import UnsupportedModel
from headatlas.model.sources.cache import home_folder, read_manifest
from headatlas.model.sources.convert import convert, is_current
from headatlas.model.sources.gguf_rules import pretokenizers, reading, vocabulary
from headatlas.model.text.folder_tokenizer import folder_tokenizer
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.progress import Silent
from tests.model.source_files import byte_backend, save_llama, write_gguf

TEXTS = [
    "List:\n\n1. apples\n\n22. pears\n  333 4444 plums\n",
    "he's SURE it CAN'T be 1984; x=3.14e-10, a_b->c[0] != 'q' /* ok */\r\n\r\n\tdone  \n \n",
    "cafe\u0301 café Zürich ½ ² ① Ⅷ ٣٤ 日本語123 한국어 العربية ไทย 🙂👩\u200d👧 \u00a0\u3000 e\u0301\u0323",
    "CamelCaseWords XMLHttpRequest foo's ALL'S i'll\n\n\n\nend",
    " ",
    "",
]


def file_with(path: Path, **facts: Any) -> Path:
    """A GGUF file of a vocabulary alone. facts: what is added to `tokenizer.ggml.`, None leaves a key out."""
    model = json.loads(byte_backend().to_str())["model"]
    tokens = sorted(model["vocab"], key=lambda token: model["vocab"][token])
    stated = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [3 if token.startswith("<|") else 1 for token in tokens],
        "merges": [" ".join(pair) for pair in model["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 0,
        **facts,
    }
    writer = gguf.GGUFWriter(path, facts.pop("architecture", "llama"))
    stated.pop("architecture", None)
    for key, value in stated.items():
        if value is not None:
            name = f"tokenizer.ggml.{key}"
            kind = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, str: gguf.GGUFValueType.STRING}
            if isinstance(value, list):
                writer.add_array(name, value)
            else:
                writer.add_key_value(name, value, kind[type(value)])
    writer.add_tensor("token_embd.weight", np.ones((len(tokens), 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def built(path: Path, **facts: Any) -> PreTrainedTokenizerFast:
    file = file_with(path / "words.gguf", **facts)
    hf = vocabulary.build(file, reading.Metadata.of(gguf.GGUFReader(file), file.name))
    assert hf is not None
    return hf


def cut(rule: Any, text: str, normalizer: Any = None) -> list[str]:
    text = text if normalizer is None else normalizer.normalize_str(text)
    return [piece for piece, _ in rule.pre_tokenize_str(text)]


# As these models' own tokenizer.json files have them.
OWN = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_text_is_cut_as_the_models_own_tokenizers_cut_it(tmp_path: Path, name: str) -> None:
    rule = built(tmp_path, pre=name).backend_tokenizer.pre_tokenizer
    for text in TEXTS:
        assert cut(rule, text) == cut(OWN[name], text)


@pytest.mark.parametrize("name", sorted(set(GGUF_PRE_TOKENIZER_SPLITS) & set(pretokenizers.RULES)))
def test_text_is_cut_as_transformers_cuts_it_for_the_names_it_knows(tmp_path: Path, name: str) -> None:
    split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), behavior="isolated")
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rule = built(tmp_path, pre=name).backend_tokenizer.pre_tokenizer
    for text in TEXTS:
        assert cut(rule, text) == cut(pre_tokenizers.Sequence([split, spell]), text)


@pytest.mark.parametrize("name", pretokenizers.RULES)
def test_no_rule_loses_a_character(name: str) -> None:
    backend = byte_backend()
    pretokenizers.apply(pretokenizers.RULES[name], backend)
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in TEXTS:
        text = normalizers.NFC().normalize_str(text) if backend.normalizer else text
        assert "".join(cut(backend.pre_tokenizer, text)) == "".join(cut(plain, text))


def test_two_line_breaks_before_a_digit_are_one_piece(tmp_path: Path) -> None:
    smollm = built(tmp_path).backend_tokenizer.pre_tokenizer
    assert cut(smollm, "List:\n\n1.") == ["List", ":", "ĊĊ", "1", "."]
    assert cut(smollm, "was  1984") == ["was", "ĠĠ", "1", "9", "8", "4"]


def test_qwen2_composes_characters_as_its_own_tokenizer_does(tmp_path: Path) -> None:
    hf = built(tmp_path, pre="qwen2")
    assert hf.encode("cafe\u0301") == hf.encode("café")
    assert hf.encode("café") == built(tmp_path, pre="smollm").encode("café")


@pytest.mark.parametrize(("name", "whole"), [("llama-bpe", True), ("qwen2", False)])
def test_whole_words_are_looked_up_where_the_rule_says_so(tmp_path: Path, name: str, whole: bool) -> None:
    model = json.loads(byte_backend().to_str())["model"]
    tokens = [*sorted(model["vocab"], key=lambda token: model["vocab"][token]), "zyx"]  # no merge leads to it
    kinds = [3 if token.startswith("<|") else 1 for token in tokens]
    hf = built(tmp_path, pre=name, tokens=tokens, token_type=kinds, add_bos_token=False)
    assert (hf.encode("zyx") == [len(tokens) - 1]) is whole


@pytest.mark.parametrize(
    ("name", "says", "first"), [("llama-bpe", None, True), ("llama-bpe", False, False), ("smollm", None, False),
                                ("smollm", True, True), ("tekken", None, True)],
)  # fmt: skip
def test_the_start_token_is_added_as_the_file_or_the_rule_says(
    tmp_path: Path, name: str, says: bool | None, first: bool
) -> None:
    hf = built(tmp_path, pre=name, add_bos_token=says)
    assert (hf.encode("a")[0] == 1) is first
    assert hf.encode("a", add_special_tokens=False)[0] != 1
    hf.save_pretrained(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved", causal=True, context=32, vocab_size=len(hf))
    assert again.bos == 1
    assert ("the tokenizer adds it" in again.bos_policy) is first


def test_special_tokens_of_any_characters_are_one_token(tmp_path: Path) -> None:
    """transformers cuts those outside the byte alphabet into pieces, DeepSeek's among them."""
    model = json.loads(byte_backend().to_str())["model"]
    tokens = sorted(model["vocab"], key=lambda token: model["vocab"][token])
    tokens += ["<｜begin▁of▁sentence｜>", "<think>", "[PAD0]"]
    kinds = [*(3 if token.startswith("<|") else 1 for token in tokens[:-3]), 3, 4, 5]
    hf = built(tmp_path, tokens=tokens, token_type=kinds)
    start, think = len(tokens) - 3, len(tokens) - 2
    assert hf.encode("<｜begin▁of▁sentence｜>the <think>dog") == [
        start, *hf.encode("the "), think, *hf.encode("dog")]  # fmt: skip
    assert start in hf.all_special_ids or hf.added_tokens_decoder[start].special
    assert not hf.added_tokens_decoder[think].special
    assert len(hf.encode("[PAD0]")) > 1


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"pre": "smolm"}, "`tokenizer.ggml.pre` is `smolm`. Did you mean 'smollm'"),
        ({"pre": "default"}, "`tokenizer.ggml.pre` is `default`"),
        ({"pre": None}, "`tokenizer.ggml.pre` is missing"),
        ({"model": "rwkv"}, "`tokenizer.ggml.model`"),
        ({"add_space_prefix": True}, "`tokenizer.ggml.add_space_prefix`"),
        ({"add_sep_token": True}, "`tokenizer.ggml.add_sep_token`"),
        ({"shiny": 3}, "`tokenizer.ggml.shiny`"),
        ({"merges": ["the qqq"]}, "`tokenizer.ggml.merges`"),
        ({"tokens": ["a", "b", "a"]}, "`tokenizer.ggml.tokens`"),
        ({"model": "llama", "scores": [0.0] * 320, "add_space_prefix": False}, "`tokenizer.ggml.add_space_prefix`"),
    ],
)
def test_what_is_not_known_about_a_tokenizer_is_refused(tmp_path: Path, facts: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        built(tmp_path, **facts)
    assert named in str(caught.value)
    assert "words.gguf" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gpt_2_itself_needs_no_name(tmp_path: Path) -> None:
    rule = built(tmp_path, pre=None, architecture="gpt2").backend_tokenizer.pre_tokenizer
    assert cut(rule, TEXTS[0]) == cut(OWN["gpt-2"], TEXTS[0])


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_folder_keeps_its_own_tokenizer_whatever_its_model_is(tmp_path: Path, kind: str) -> None:
    """For Qwen2 transformers puts its class's own normalizer and pre-tokenizer in place of those of the file."""
    folder = save_llama(tmp_path / "mine", tokenizer=False)
    backend = byte_backend()
    backend.pre_tokenizer = OWN["smollm"]
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|im_start|>").save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    stated = Backend.from_file(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer.load(folder, causal=True, context=32, vocab_size=1000)
    for text in TEXTS:
        assert tokenizer.encode(text) == stated.encode(text).ids
    assert tokenizer.bos == 1
    assert folder_tokenizer(folder).bos_token == "<|im_start|>"


def test_a_class_that_agrees_with_the_file_is_kept(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "qwen", tokenizer=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    backend = byte_backend()
    pretokenizers.apply(pretokenizers.RULES["qwen2"], backend)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(folder)
    assert type(folder_tokenizer(folder)).__name__ == "Qwen2Tokenizer"


LISTS = [
    "Shopping list:\n\n1. apples\n\n2. pears\n\n3. plums\n",
    "Chapter\n\n12\n\nThe dog went to the store.",
    "The war ended in  1945, not in  1946.",
    "def f():\n    3 + 4\n    5 + 6\n",
    "Scores:\n\n10\n\n20\n\n30\n",
]


@pytest.mark.slow
@pytest.mark.parametrize("text", LISTS)
def test_smollm2_finds_the_ids_of_its_own_rule_likelier(text: str) -> None:
    """The trained ids against those of GPT-2's rule, which a reader that does not know the name falls back to."""
    folder = home_folder() / "models" / "smollm2-135m"
    manifest = read_manifest(folder)
    if manifest is None or not is_current(manifest):
        pytest.skip("needs the model, converted anew: headatlas pull smollm2-135m")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    right = folder_tokenizer(folder)
    state = json.loads(right.backend_tokenizer.to_str())
    wrong = Backend.from_str(json.dumps(state))
    wrong.pre_tokenizer = OWN["gpt-2"]
    ids, fallback = right.encode(text, add_special_tokens=False), wrong.encode(text, add_special_tokens=False).ids
    assert ids != fallback
    assert right.decode(ids) == wrong.decode(fallback) == text

    def nats(ids: list[int]) -> float:
        """The log-probability of the whole text, after the start token."""
        with torch.no_grad():
            found = model(torch.tensor([[right.bos_token_id, *ids]])).logits[0].log_softmax(-1)
        return float(found[range(len(ids)), ids].sum())

    assert nats(ids) > nats(fallback) + 1


def test_the_rule_of_a_file_reaches_the_converted_folder(tmp_path: Path) -> None:
    folder = tmp_path / "converted"
    folder.mkdir()
    convert(write_gguf(tmp_path / "tiny.gguf"), folder, Silent())
    tokenizer = Tokenizer.load(folder, causal=True, context=32, vocab_size=320)
    rule = folder_tokenizer(folder).backend_tokenizer.pre_tokenizer
    assert cut(rule, "the dog\n\n1. cat") == cut(OWN["smollm"], "the dog\n\n1. cat")
    assert tokenizer.decode(tokenizer.encode("the dog\n\n1. cat")) == "the dog\n\n1. cat"
