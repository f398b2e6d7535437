"""Llama and its kin: separate q, k and v, gated feed-forward, RMS norms."""

from __future__ import annotations

import numpy as np

from headatlas.model.sources.gguf_rules.architecture import (
    ATTENTION,
    ENDS,
    GATED,
    HEAD_NORMS,
    RMS,
    Architecture,
    Facts,
    Fields,
    biases,
    even_heads,
    grouped,
    no_window,
)  # fmt: skip

_QKVO = ("attn_q", "attn_k", "attn_v", "attn_output")
_MLP = ("ffn_gate", "ffn_up", "ffn_down")


def halves(values: np.ndarray, n_heads: int) -> np.ndarray:
    """Put the rows of each head back in two halves, as transformers pairs them for rotation.

    llama.cpp's Llama turns neighbouring rows 2i and 2i + 1 together, transformers the rows i and i + d/2.
    values: [heads * d] or [heads * d, width].
    """
    pairs = values.reshape(n_heads, -1, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


def _llama(facts: Facts, found: Fields) -> Fields:
    found = {
        **grouped(facts, found),
        "attention_bias": biases(facts, _QKVO),
        "mlp_bias": biases(facts, _MLP),
    }
    no_window(facts.keys)  # llama.cpp's Llama sees everything, and no converter writes one
    return found


def _qwen2(facts: Facts, _: Fields) -> Fields:
    no_window(facts.keys)  # Qwen2 could have one in some layers, but the file would not say in which
    return even_heads(facts)


def _qwen3(facts: Facts, found: Fields) -> Fields:
    no_window(facts.keys)
    return {**grouped(facts, found), "attention_bias": biases(facts, _QKVO)}


def _phi3(facts: Facts, found: Fields) -> Fields:
    window = facts.keys.get("attention.sliding_window", 0)
    rope = found["rope_parameters"]
    length = rope.get("original_max_position_embeddings", found["max_position_embeddings"])
    return {
        **even_heads(facts),
        "sliding_window": int(window) or None,  # zero stands for none (Phi-4)
        "original_max_position_embeddings": length,
        # Of the configuration's own padding id, which need not exist in a smaller vocabulary.
        "pad_token_id": None,
    }


_ATTENTION_ZEROS = tuple(f"model.layers.*.self_attn.{part}_proj.bias" for part in "qkvo")
_MLP_ZEROS = tuple(f"model.layers.*.mlp.{part}_proj.bias" for part in ("gate", "up", "down"))

LLAMA = Architecture(
    "llama",
    "LlamaConfig",
    RMS,
    {**ENDS, **ATTENTION, **GATED},
    {
        "blk.*.attn_q": lambda values, config: halves(values, config["num_attention_heads"]),
        "blk.*.attn_k": lambda values, config: halves(values, config["num_key_value_heads"]),
    },
    fields=_llama,
    zeros=(*_ATTENTION_ZEROS, *_MLP_ZEROS),
)
QWEN2 = Architecture("qwen2", "Qwen2Config", RMS, {**ENDS, **ATTENTION, **GATED}, fields=_qwen2)
QWEN3 = Architecture(
    "qwen3", "Qwen3Config", RMS, {**ENDS, **ATTENTION, **HEAD_NORMS, **GATED}, fields=_qwen3, zeros=_ATTENTION_ZEROS
)
PHI3 = Architecture(
    "phi3",
    "Phi3Config",
    RMS,
    {
        **ENDS,
        "blk.*.attn_norm": "model.layers.*.input_layernorm",
        "blk.*.attn_qkv": "model.layers.*.self_attn.qkv_proj",
        "blk.*.attn_output": "model.layers.*.self_attn.o_proj",
        "blk.*.ffn_norm": "model.layers.*.post_attention_layernorm",
        "blk.*.ffn_up": "model.layers.*.mlp.gate_up_proj",
        "blk.*.ffn_down": "model.layers.*.mlp.down_proj",
    },
    rotary="partial",
    fields=_phi3,
)
