"""The built-in models themselves, where they have been fetched: how they start texts and whether they make sense."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from headatlas.model.sources.builtin import BUILTINS
from headatlas.model.sources.cache import home_folder, read_manifest
from headatlas.model.sources.resolve import resolve
from headatlas.model.text.tokenizer import Tokenizer
from tests.recorder import Recorder


def fetched(name: str) -> Path:
    folder = home_folder() / "models" / name
    if read_manifest(folder) is None:
        pytest.skip(f"needs the model: headatlas pull {name}")
    return folder


@pytest.mark.parametrize("name", BUILTINS)
def test_a_fetched_model_is_given_without_a_word(name: str) -> None:
    fetched(name)
    told = Recorder()
    source = resolve(name, progress=told)
    assert told.lines == []
    assert source.kind == "builtin"
    assert source.sha256 == BUILTINS[name].files[0].sha256
    assert source.has_tokenizer


@pytest.mark.parametrize(
    ("name", "causal", "vocab_size", "bos", "eos", "policy"),
    [
        ("smollm2-135m", True, 49152, 1, None, "<|im_start|> (id 1): the tokenizer adds none, its bos_token is used"),
        ("gemma3-270m", True, 262144, 2, None, "<bos> (id 2): the tokenizer adds it"),
        ("minilm-l6", False, 30522, 101, 102, "[CLS] (id 101): the tokenizer adds it; end [SEP] (id 102)"),
    ],
)
def test_the_built_in_models_start_their_texts_as_documented(
    name: str, causal: bool, vocab_size: int, bos: int, eos: int | None, policy: str
) -> None:
    tokenizer = Tokenizer.load(fetched(name), causal=causal, context=512, vocab_size=vocab_size)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.bos_policy) == (bos, eos, policy)
    plain = tokenizer.plain_ids()
    assert {" the", " of", " and", " in"} <= set(tokenizer.pieces(plain[:60]))
    assert tokenizer.single(" Mary") is not None
    assert len(plain) > 20_000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("smollm2-135m", " Paris"), ("gemma3-270m", " the")])
def test_the_built_in_models_continue_sensibly(name: str, expected: str) -> None:
    folder = fetched(name)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = Tokenizer.load(folder, causal=True, context=512, vocab_size=model.config.vocab_size)
    # As each tokenizer does it by itself: Gemma with its start token, SmolLM2 without one.
    start = [tokenizer.bos] if name == "gemma3-270m" else []
    for text, following in (("The capital of France is", expected), ("1, 2, 3, 4, 5,", " ")):
        ids = torch.tensor([start + tokenizer.encode(text)])
        with torch.no_grad():
            assert tokenizer.decode(int(model(ids).logits[0, -1].argmax())).startswith(following)
