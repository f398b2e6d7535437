"""Mixtures of experts and hybrids: Qwen's, gpt-oss, LFM2."""

from __future__ import annotations

import numpy as np

from headatlas.model.sources.gguf_rules.architecture import (
    ATTENTION,
    ENDS,
    HEAD_NORMS,
    RMS,
    SIZES,
    Architecture,
    Facts,
    Fields,
    State,
    biases,
    even_heads,
    grouped,
    head_width,
    no_window,
)  # fmt: skip

_FFN_NORM = {"blk.*.ffn_norm": "model.layers.*.post_attention_layernorm"}
_EXPERTS = {
    "blk.*.ffn_gate_inp": "model.layers.*.mlp.gate",
    "blk.*.ffn_gate_exps": "model.layers.*.mlp.experts.gate",
    "blk.*.ffn_up_exps": "model.layers.*.mlp.experts.up",
    "blk.*.ffn_down_exps": "model.layers.*.mlp.experts.down",
}
_QWEN_KEYS = {
    **{key: name for key, name in RMS.items() if key != "feed_forward_length"},
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
}


def _stacked(state: State, _: Fields) -> None:
    """Gate and up of all experts in one parameter, gate first. Each: [expert, inner, width]."""
    for name in [name for name in state if name.endswith(".experts.gate.weight")]:
        stem = name.removesuffix("gate.weight")
        gate, up = state.pop(name), state.pop(f"{stem}up.weight", None)
        if up is not None:
            state[f"{stem}gate_up_proj"] = np.concatenate([gate, up], axis=1)
    for name in [name for name in state if name.endswith(".experts.down.weight")]:
        state[name.replace(".down.weight", ".down_proj")] = state.pop(name)


def _routed(facts: Facts, norm: bool) -> Fields:
    """What both of Qwen's mixtures share; all layers have experts. norm: whether chosen weights are made to sum to one."""
    keys = facts.keys
    no_window(keys)
    dense = keys.get("feed_forward_length", 0)  # of no use where every layer has experts, but some files state it
    return {
        "intermediate_size": int(dense) or keys.require("embedding_length"),
        "moe_intermediate_size": int(keys.require("expert_feed_forward_length")),
        "norm_topk_prob": bool(keys.get("expert_weights_norm", norm)),
    }


def _qwen2moe(facts: Facts, _: Fields) -> Fields:
    shared = facts.keys.require("expert_shared_feed_forward_length")
    facts.keys.get("expert_shared_count")  # one wide expert, whatever the count
    return {**even_heads(facts), **_routed(facts, norm=False), "shared_expert_intermediate_size": int(shared)}


def _qwen3moe(facts: Facts, found: Fields) -> Fields:
    return {
        **grouped(facts, found),
        **_routed(facts, norm=True),
        "attention_bias": biases(facts, ("attn_q", "attn_k", "attn_v", "attn_output")),
    }


def _row(values: np.ndarray, _: Fields) -> np.ndarray:
    """A map to one number is a matrix of one row in transformers."""
    return values.reshape(1, -1)


def _gpt_oss(facts: Facts, found: Fields) -> Fields:
    keys = facts.keys
    keys.get("feed_forward_length")  # the same width again
    count, window = keys.require("block_count"), int(keys.require("attention.sliding_window"))
    rope = dict(found["rope_parameters"])
    if rope["rope_type"] == "yarn":
        rope["truncate"] = False  # as OpenAI's code has it; the file cannot say
    if keys.get("attention.sliding_window_pattern", 2) != 2:
        raise keys.refusal("attention.sliding_window_pattern", "every second layer of gpt-oss has a window")
    return {
        **grouped(facts, found),
        "rope_parameters": rope,
        "sliding_window": window,
        "layer_types": ["full_attention" if i % 2 else "sliding_attention" for i in range(count)],
    }


def _interleaved(state: State, _: Fields) -> None:
    """gpt-oss: rows of gate and up alternate, and maps are stored [expert, in, out]."""
    for name in [name for name in state if ".experts.gate." in name]:
        gate, up = state.pop(name), state.pop(name.replace(".gate.", ".up."), None)
        if up is None:
            continue
        both = np.stack([gate, up], axis=2).reshape(gate.shape[0], -1, *gate.shape[2:])
        stem = name.partition(".gate.")[0]
        if name.endswith(".weight"):
            state[f"{stem}.gate_up_proj"] = np.ascontiguousarray(both.swapaxes(1, 2))
        else:
            state[f"{stem}.gate_up_proj_bias"] = both
    for name in [name for name in state if ".experts.down." in name]:
        values, stem = state.pop(name), name.partition(".down.")[0]
        if name.endswith(".weight"):
            state[f"{stem}.down_proj"] = np.ascontiguousarray(values.swapaxes(1, 2))
        else:
            state[f"{stem}.down_proj_bias"] = values
    for name in [name for name in state if name.endswith(".sinks.weight")]:
        state[name.removesuffix(".weight")] = state.pop(name)


def _lfm2(facts: Facts, _: Fields) -> Fields:
    keys = facts.keys
    no_window(keys)
    per_layer = keys.require("attention.head_count_kv")
    if not isinstance(per_layer, list) or len({count for count in per_layer if count}) != 1:
        raise keys.refusal("attention.head_count_kv", "one count a layer is expected, zero for convolutions")
    if head_width(keys) * keys.same_everywhere("attention.head_count") != keys.require("embedding_length"):
        raise keys.refusal("attention.key_length", "the heads' widths do not add up to the model's")
    return {
        "num_key_value_heads": max(per_layer),
        "layer_types": ["full_attention" if count else "conv" for count in per_layer],
        "block_auto_adjust_ff_dim": False,  # the width in the file is the adjusted one
        "conv_bias": facts.any("shortconv.conv.bias", "shortconv.in_proj.bias", "shortconv.out_proj.bias"),
    }


QWEN2MOE = Architecture(
    "qwen2moe",
    "Qwen2MoeConfig",
    _QWEN_KEYS,
    {
        **ENDS, **ATTENTION, **_FFN_NORM, **_EXPERTS,
        "blk.*.ffn_gate_inp_shexp": "model.layers.*.mlp.shared_expert_gate",
        "blk.*.ffn_gate_shexp": "model.layers.*.mlp.shared_expert.gate_proj",
        "blk.*.ffn_up_shexp": "model.layers.*.mlp.shared_expert.up_proj",
        "blk.*.ffn_down_shexp": "model.layers.*.mlp.shared_expert.down_proj",
    },
    {"blk.*.ffn_gate_inp_shexp": _row},
    fields=_qwen2moe,
    merge=_stacked,
)  # fmt: skip
QWEN3MOE = Architecture(
    "qwen3moe",
    "Qwen3MoeConfig",
    _QWEN_KEYS,
    {**ENDS, **ATTENTION, **HEAD_NORMS, **_FFN_NORM, **_EXPERTS},
    fields=_qwen3moe,
    zeros=tuple(f"model.layers.*.self_attn.{part}_proj.bias" for part in "qkvo"),
    merge=_stacked,
)
GPT_OSS = Architecture(
    "gpt-oss",
    "GptOssConfig",
    {
        **{key: name for key, name in RMS.items() if key != "feed_forward_length"},
        "expert_feed_forward_length": "intermediate_size",
        "expert_count": "num_local_experts",
        "expert_used_count": "num_experts_per_tok",
    },
    {
        **ENDS,
        **ATTENTION,
        **_EXPERTS,
        "blk.*.attn_sinks": "model.layers.*.self_attn.sinks",
        "blk.*.post_attention_norm": "model.layers.*.post_attention_layernorm",
        "blk.*.ffn_gate_inp": "model.layers.*.mlp.router",
    },
    fields=_gpt_oss,
    merge=_interleaved,
)
LFM2 = Architecture(
    "lfm2",
    "Lfm2Config",
    {
        **SIZES,
        "attention.layer_norm_rms_epsilon": "norm_eps",
        "shortconv.l_cache": "conv_L_cache",
    },
    {
        "token_embd": "model.embed_tokens",
        "token_embd_norm": "model.embedding_norm",
        "output": "lm_head",
        "blk.*.attn_norm": "model.layers.*.operator_norm",
        "blk.*.attn_q": "model.layers.*.self_attn.q_proj",
        "blk.*.attn_k": "model.layers.*.self_attn.k_proj",
        "blk.*.attn_v": "model.layers.*.self_attn.v_proj",
        "blk.*.attn_output": "model.layers.*.self_attn.out_proj",
        "blk.*.attn_q_norm": "model.layers.*.self_attn.q_layernorm",
        "blk.*.attn_k_norm": "model.layers.*.self_attn.k_layernorm",
        "blk.*.shortconv.conv": "model.layers.*.conv.conv",
        "blk.*.shortconv.in_proj": "model.layers.*.conv.in_proj",
        "blk.*.shortconv.out_proj": "model.layers.*.conv.out_proj",
        "blk.*.ffn_norm": "model.layers.*.ffn_norm",
        "blk.*.ffn_gate": "model.layers.*.feed_forward.w1",
        "blk.*.ffn_up": "model.layers.*.feed_forward.w3",
        "blk.*.ffn_down": "model.layers.*.feed_forward.w2",
    },
    {"blk.*.shortconv.conv": lambda values, _: values[:, None] if values.ndim == 2 else values},
    fields=_lfm2,
)
