"""The keys that llama.cpp's converter writes for each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gguf
import numpy as np


def sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    """What TextModel.set_gguf_parameters writes for all."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    _scaling(writer, rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if getattr(config, "rms_norm_eps", None) is not None:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    for name in ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"):
        if getattr(config, name, None) is not None:
            writer.add_layer_norm_eps(getattr(config, name))
    if getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None):
        writer.add_expert_count(getattr(config, "num_local_experts", None) or config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if getattr(config, "head_dim", None) is not None:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _scaling(writer: gguf.GGUFWriter, rope: Mapping[str, Any]) -> None:
    kind = rope["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if rope.get("attention_factor") is not None:
            writer.add_rope_scaling_yarn_attn_factor(rope["attention_factor"])
        if rope.get("beta_fast") is not None:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        if rope.get("beta_slow") is not None:
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    elif kind == "longrope":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)


def _llama_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    sizes(writer, config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)


def _moe_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    sizes(writer, config)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if getattr(config, "shared_expert_intermediate_size", None):
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)


def _phi3_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    first = config.original_max_position_embeddings
    writer.add_context_length(config.max_position_embeddings)
    writer.add_rope_scaling_orig_ctx_len(first)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(
        int(rope["partial_rotary_factor"] * config.hidden_size) // config.num_attention_heads
    )
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_sliding_window(config.sliding_window or 0)
    if rope["rope_type"] == "longrope":
        scale = config.max_position_embeddings / first
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(scale) / np.log(first))))


def _gemma2_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_sliding_window(config.sliding_window)


def _gemma3_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    sizes(writer, config)
    writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_sliding_window(config.sliding_window)


def _gpt2_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _bloom_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(2048)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(4 * config.hidden_size)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _falcon_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(2048)
    writer.add_tensor_data_layout("jploski")
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_kv_heads if config.new_decoder_architecture else 1)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _stablelm_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    share = config.rope_parameters["partial_rotary_factor"]
    writer.add_rope_dimension_count(int(share * (config.hidden_size // config.num_attention_heads)))
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_parallel_residual(config.use_parallel_residual)
    writer.add_layer_norm_eps(config.layer_norm_eps)


def _nemotron_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    sizes(writer, config)
    writer.add_layer_norm_rms_eps(config.norm_eps)  # find_hparam(["rms_norm_eps", "norm_eps"]) finds it
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_eps(config.norm_eps)
    rope = config.rope_parameters
    writer.add_rope_dimension_count(
        int(rope["partial_rotary_factor"] * config.hidden_size) // config.num_attention_heads
    )
    if rope.get("factor") is None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def _gpt_oss_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    sizes(writer, config)
    writer.add_sliding_window(config.sliding_window)
    writer.add_expert_feed_forward_length(config.intermediate_size)


def _lfm2_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    width = int(2 * config.intermediate_size / 3)  # what Lfm2MLP makes of it with a multiplier of one
    width = config.block_multiple_of * -(-width // config.block_multiple_of)
    writer.add_feed_forward_length(width)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv([0 if one == "conv" else config.num_key_value_heads for one in config.layer_types])
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_shortconv_l_cache(config.conv_L_cache)
    writer.add_layer_norm_rms_eps(config.norm_eps)


SIZES: Mapping[str, Callable[[gguf.GGUFWriter, Any], None]] = {
    "llama": _llama_sizes,
    "qwen2-moe": _moe_sizes,
    "qwen3-moe": _moe_sizes,
    "phi3": _phi3_sizes,
    "gemma2": _gemma2_sizes,
    "gemma3": _gemma3_sizes,
    "gpt2": _gpt2_sizes,
    "bloom": _bloom_sizes,
    "falcon": _falcon_sizes,
    "falcon-grouped": _falcon_sizes,
    "stablelm": _stablelm_sizes,
    "nemotron": _nemotron_sizes,
    "gpt-oss": _gpt_oss_sizes,
    "lfm2": _lfm2_sizes,
}
