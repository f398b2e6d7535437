"""Tiny models with random weights, and vocabularies, for tests."""

from __future__ import annotations

import functools

import torch
import transformers as T

from headatlas.model import Model, Tokenizer, attach

SMALL = {
    "vocab_size": 160,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 160,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def llama(**changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return T.LlamaForCausalLM(T.LlamaConfig(**{**SMALL, **changes})).eval()


def gpt2(**changes) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 160,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 160,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return T.GPT2LMHeadModel(T.GPT2Config(**{**sizes, **changes})).eval()


def gemma3(**changes) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {**SMALL, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 24, "num_hidden_layers": 2}
    sizes["layer_types"] = ["sliding_attention", "full_attention"]
    return T.Gemma3ForCausalLM(T.Gemma3TextConfig(**{**sizes, **changes})).eval()


def gemma2(**changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return T.Gemma2ForCausalLM(T.Gemma2Config(**{**SMALL, "head_dim": 16, "sliding_window": 24, **changes})).eval()


def bert(**changes) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {
        name: value
        for name, value in SMALL.items()
        if name not in ("num_key_value_heads", "bos_token_id", "eos_token_id")
    }
    return T.BertModel(T.BertConfig(**{**sizes, **changes})).eval()


MAKERS = {
    "mha": functools.partial(llama, num_key_value_heads=4),
    "gqa": llama,
    "mqa": functools.partial(llama, num_key_value_heads=1),
    "gpt2": gpt2,
    "window": gemma3,
    "softcap": gemma2,
    "encoder": bert,
}


@functools.cache
def model(kind: str) -> Model:
    """A checked toy; shared between tests, so leave it as it is."""
    return attach(MAKERS[kind]())


@functools.cache
def smollm2_vocabulary() -> Tokenizer:
    """The tokenizer of the built-in model, without its weights."""
    from headatlas.model.sources.resolve import resolve

    return Tokenizer.load(resolve("smollm2-135m").folder, causal=True, context=8192, vocab_size=49152)


@functools.cache
def two_stack_vocabulary() -> Tokenizer:
    """MiniLM's tokenizer as that of an encoder-decoder with a start token of its own."""
    from headatlas.model.sources.resolve import resolve

    return Tokenizer.load(
        resolve("minilm-l6").folder, causal=True, context=512, vocab_size=30522, two_stacks=True, decoder_start=0
    )


@functools.cache
def translation_vocabulary() -> Tokenizer:
    """The tokenizer of the translation toy."""
    from headatlas.lab.translation.spelling import tokenizer
    from headatlas.treebanks.language_pair import BOS, TARGET

    return Tokenizer(
        causal=True, context=32, vocab_size=TARGET, hf=tokenizer(), bos="auto", two_stacks=True, decoder_start=BOS
    )


def vocabulary_for(detector) -> Tokenizer:
    """A tokenizer on which the detector's task can be built."""
    if detector.task.name == "translation":
        return translation_vocabulary()
    return two_stack_vocabulary() if detector.cross else smollm2_vocabulary()


def with_tokenizer(hf: torch.nn.Module, folder, *, encoder: bool = False) -> None:
    """Save a model with a small byte-pair tokenizer trained on the bundled prose."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    from headatlas.tasks._passages import passages

    size = int(hf.config.vocab_size)
    marks = ["[PAD]", "[BOS]", "[EOS]", "[CLS]", "[SEP]"]
    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    fast.train_from_iterator([text for texts in passages().values() for text in texts[:2]], trainer)
    if encoder:
        fast.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
        )
    names = (
        {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        if encoder
        else {"bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]"}
    )
    hf.save_pretrained(folder)
    T.PreTrainedTokenizerFast(tokenizer_object=fast, **names).save_pretrained(folder)
