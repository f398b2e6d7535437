"""Small GPT-2s and Llamas for training: ordinary transformers models with few and narrow layers."""

from __future__ import annotations

from typing import Any

import torch


def small_gpt2(
    vocab: int,
    length: int,
    width: int,
    heads: int,
    *,
    layers: int = 2,
    mlp: int = 0,
    seed: int = 0,
    bos: int | None = None,
) -> Any:
    """A GPT-2 with learned positions. mlp: units of each MLP; 0: attention only. bos: the token that texts begin with, if any."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocab,
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_inner=mlp or 1,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        bos_token_id=bos,
        eos_token_id=bos,
    )
    return _made(GPT2LMHeadModel, config, seed, mlp)


def small_llama(
    vocab: int, length: int, width: int, heads: int, *, layers: int = 2, mlp: int = 0, seed: int = 0
) -> Any:
    """A Llama with rotary positions; see `small_gpt2`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab,
        max_position_embeddings=length,
        hidden_size=width,
        intermediate_size=mlp or 1,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return _made(LlamaForCausalLM, config, seed, mlp)


def small_bert(vocab: int, length: int, width: int, heads: int, *, mlp: int, layers: int = 2, seed: int = 0) -> Any:
    """A BERT for masked tokens with learned positions; mlp: units of each MLP."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=vocab, max_position_embeddings=length, hidden_size=width, intermediate_size=mlp,
        num_hidden_layers=layers, num_attention_heads=heads, type_vocab_size=1, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return _made(BertForMaskedLM, config, seed, mlp)


def _made(kind: Any, config: Any, seed: int, mlp: int) -> Any:
    """The model with weights of this seed; without MLPs, theirs have one unit, stay at zero and are not trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    for name, parameter in model.named_parameters():
        if ".mlp." in name and not mlp:
            parameter.data.zero_()
            parameter.requires_grad_(False)
    return model
