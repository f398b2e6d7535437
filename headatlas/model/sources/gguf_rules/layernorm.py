"""Architectures with plain layer norms: GPT-2, BLOOM, Falcon, StarCoder2, StableLM, Nemotron."""

from __future__ import annotations

import numpy as np

from headatlas.model.sources.gguf_rules.architecture import (
    ATTENTION,
    ENDS,
    GATED,
    SIZES,
    Architecture,
    Change,
    Facts,
    Fields,
    State,
    biases,
    even_heads,
    grouped,
    no_window,
    plus_one,
)  # fmt: skip

_QKVO = ("attn_q", "attn_k", "attn_v", "attn_output")


def _transpose(values: np.ndarray, _: Fields) -> np.ndarray:
    """GPT-2's maps are stored [in, out] by transformers; biases have one dimension and stay."""
    return np.ascontiguousarray(values.T)


def _gpt2(facts: Facts, _: Fields) -> Fields:
    heads = even_heads(facts)["num_key_value_heads"]
    if heads != facts.keys.require("attention.head_count"):
        raise facts.keys.refusal("attention.head_count_kv", "GPT-2 has no grouped heads")
    return {}


def _bloom_rows(values: np.ndarray, config: Fields) -> np.ndarray:
    """From all q, all k, all v to q, k and v of each head in turn. values: [3 * width] or [3 * width, width]."""
    heads = values.reshape(3, config["n_head"], -1, *values.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(0, 1)).reshape(values.shape)


def _bloom(facts: Facts, _: Fields) -> Fields:
    facts.keys.get("context_length")  # ALiBi has no longest text
    facts.keys.get("feed_forward_length")  # four times the width, always; another shape of tensors is refused
    return _gpt2(facts, {})


def _falcon_rows(values: np.ndarray, config: Fields) -> np.ndarray:
    """From all q, all k, all v to the queries, the key and the value of each group in turn."""
    n_groups, n_heads = config["num_kv_heads"], config["num_attention_heads"]
    width = values.shape[0] // (n_heads + 2 * n_groups)
    q, k, v = np.split(values, [n_heads * width, (n_heads + n_groups) * width])
    parts = [part.reshape(n_groups, -1, *values.shape[1:]) for part in (q, k, v)]
    return np.concatenate(parts, axis=1).reshape(values.shape)


def _falcon(facts: Facts, _: Fields) -> Fields:
    n_groups = even_heads(facts)["num_key_value_heads"]
    newer = n_groups > 1 or facts.any("attn_norm_2.weight")
    return {
        "num_kv_heads": n_groups,
        "new_decoder_architecture": newer,
        "num_ln_in_parallel_attn": (2 if facts.any("attn_norm_2.weight") else 1) if newer else None,
        "multi_query": not newer,
        "parallel_attn": True,
        "alibi": False,
        "bias": biases(facts, ("attn_qkv", "attn_output", "ffn_up", "ffn_down")),
    }


def _falcon_norms(state: State, config: Fields) -> None:
    """The first norm has another name where there are two: Falcon 40B's before the feed-forward."""
    if config["num_ln_in_parallel_attn"] == 2:
        for name in [name for name in state if ".input_layernorm." in name]:
            state[name.replace(".input_layernorm.", ".ln_mlp.")] = state.pop(name)


def _starcoder2(facts: Facts, _: Fields) -> Fields:
    window = int(facts.keys.get("attention.sliding_window", 0))
    return {
        **even_heads(facts),
        "sliding_window": window or None,
        "use_bias": biases(facts, (*_QKVO, "ffn_up", "ffn_down")),
    }


def _stablelm(facts: Facts, _: Fields) -> Fields:
    no_window(facts.keys)
    parallel = not facts.any("ffn_norm.weight")  # one norm serves both branches
    if bool(facts.keys.get("use_parallel_residual", parallel)) != parallel:
        raise facts.keys.refusal("use_parallel_residual", "the norms of the file say otherwise")
    return {
        **even_heads(facts),
        "use_qkv_bias": biases(facts, _QKVO[:3]),
        "qk_layernorm": facts.any("attn_q_norm.weight"),
        "use_parallel_residual": parallel,
    }


def _per_head(values: np.ndarray, _: Fields) -> dict[str, np.ndarray]:
    """StableLM 12B norms each head on its own. values: [heads, d]."""
    return {f"norms.{i}": row for i, row in enumerate(np.ascontiguousarray(values))}


def _nemotron(facts: Facts, found: Fields) -> Fields:
    no_window(facts.keys)
    keys = facts.keys
    if keys.get("attention.layer_norm_rms_epsilon", found["norm_eps"]) != found["norm_eps"]:
        raise keys.refusal("attention.layer_norm_rms_epsilon", "Nemotron's norms have another epsilon")
    return {
        **grouped(facts, found),
        "attention_bias": biases(facts, _QKVO),
        "mlp_bias": biases(facts, ("ffn_up", "ffn_down")),
    }


_PLAIN = {
    "blk.*.ffn_norm": "model.layers.*.post_attention_layernorm",
    "blk.*.ffn_up": "model.layers.*.mlp.up_proj",
    "blk.*.ffn_down": "model.layers.*.mlp.down_proj",
}
_TRANSPOSED: dict[str, Change] = {
    f"blk.*.{leaf}": _transpose for leaf in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
}
GPT2 = Architecture(
    "gpt2",
    "GPT2Config",
    {
        "context_length": "n_positions",
        "embedding_length": "n_embd",
        "block_count": "n_layer",
        "feed_forward_length": "n_inner",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    {
        "token_embd": "transformer.wte",
        "position_embd": "transformer.wpe",
        "blk.*.attn_norm": "transformer.h.*.ln_1",
        "blk.*.attn_qkv": "transformer.h.*.attn.c_attn",
        "blk.*.attn_output": "transformer.h.*.attn.c_proj",
        "blk.*.ffn_norm": "transformer.h.*.ln_2",
        "blk.*.ffn_up": "transformer.h.*.mlp.c_fc",
        "blk.*.ffn_down": "transformer.h.*.mlp.c_proj",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
    },
    _TRANSPOSED,
    rotary=None,
    fields=_gpt2,
)
BLOOM = Architecture(
    "bloom",
    "BloomConfig",
    {
        "embedding_length": "hidden_size",
        "block_count": "n_layer",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    {
        "token_embd": "transformer.word_embeddings",
        "token_embd_norm": "transformer.word_embeddings_layernorm",
        "blk.*.attn_norm": "transformer.h.*.input_layernorm",
        "blk.*.attn_qkv": "transformer.h.*.self_attention.query_key_value",
        "blk.*.attn_output": "transformer.h.*.self_attention.dense",
        "blk.*.ffn_norm": "transformer.h.*.post_attention_layernorm",
        "blk.*.ffn_up": "transformer.h.*.mlp.dense_h_to_4h",
        "blk.*.ffn_down": "transformer.h.*.mlp.dense_4h_to_h",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
    },
    {"blk.*.attn_qkv": _bloom_rows},
    rotary=None,
    fields=_bloom,
)
FALCON = Architecture(
    "falcon",
    "FalconConfig",
    {
        **{key: name for key, name in SIZES.items() if key != "feed_forward_length"},
        "feed_forward_length": "ffn_hidden_size",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    {
        "token_embd": "transformer.word_embeddings",
        "blk.*.attn_norm": "transformer.h.*.input_layernorm",
        "blk.*.attn_norm_2": "transformer.h.*.ln_attn",
        "blk.*.attn_qkv": "transformer.h.*.self_attention.query_key_value",
        "blk.*.attn_output": "transformer.h.*.self_attention.dense",
        "blk.*.ffn_up": "transformer.h.*.mlp.dense_h_to_4h",
        "blk.*.ffn_down": "transformer.h.*.mlp.dense_4h_to_h",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
    },
    {"blk.*.attn_qkv": _falcon_rows},
    fields=_falcon,
    merge=_falcon_norms,
)
STARCODER2 = Architecture(
    "starcoder2",
    "Starcoder2Config",
    {**SIZES, "attention.layer_norm_epsilon": "norm_epsilon"},
    {
        **ENDS,
        **ATTENTION,
        "blk.*.ffn_norm": "model.layers.*.post_attention_layernorm",
        "blk.*.ffn_up": "model.layers.*.mlp.c_fc",
        "blk.*.ffn_down": "model.layers.*.mlp.c_proj",
    },
    fields=_starcoder2,
)
STABLELM = Architecture(
    "stablelm",
    "StableLmConfig",
    {**SIZES, "attention.layer_norm_epsilon": "layer_norm_eps"},
    {
        **ENDS,
        **ATTENTION,
        **GATED,
        "blk.*.attn_q_norm": "model.layers.*.self_attn.q_layernorm",
        "blk.*.attn_k_norm": "model.layers.*.self_attn.k_layernorm",
    },
    {"blk.*.attn_q_norm": _per_head, "blk.*.attn_k_norm": _per_head},
    rotary="partial",
    fields=_stablelm,
)
NEMOTRON = Architecture(
    "nemotron",
    "NemotronConfig",
    {**SIZES, "attention.layer_norm_epsilon": "norm_eps"},
    {**ENDS, **ATTENTION, **_PLAIN},
    {**plus_one("", "output_norm"), **plus_one("blk.*.", "attn_norm", "ffn_norm")},
    rotary="partial",
    fields=_nemotron,
    zeros=(
        *(f"model.layers.*.self_attn.{part}_proj.bias" for part in "qkvo"),
        *(f"model.layers.*.mlp.{part}_proj.bias" for part in ("up", "down")),
    ),
)
