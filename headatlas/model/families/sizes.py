"""Tiny values for the fields of configurations, by the names that transformers' families share.

Four layers of width 64 with 4 heads in 2 groups, 200 tokens; every window, chunk, block and top-k so small that 40 tokens
pass it, because a mask that never cuts anything cannot be seen to be missing.
"""

from __future__ import annotations

from collections.abc import Mapping

N_LAYERS = 4
WIDTH = 64
N_HEADS = 4
D_HEAD = 16
VOCABULARY = 200
FIRST_SPECIAL = 180  # token ids from here on stand for images, sounds and other marks; plain text stays below

_VALUES: tuple[tuple[int, str], ...] = (
    (
        N_LAYERS,
        """num_hidden_layers n_layer num_layers n_layers num_decoder_layers num_encoder_layers encoder_layers
        decoder_layers layers""",
    ),
    (
        WIDTH,
        """hidden_size d_model n_embd dim emb_dim embed_dim word_embed_proj_dim d_embedding text_hidden_size embedding_dim
        backbone_hidden_size encoder_hidden_size hidden_size_global lru_width cross_attention_hidden_size
        prediction_head_size pooler_hidden_size moe_hidden_size""",
    ),
    (
        N_HEADS,
        """num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads
        num_encoder_attention_heads num_decoder_attention_heads swa_num_attention_heads""",
    ),
    (2, "num_key_value_heads num_kv_heads kv_n_heads swa_num_key_value_heads"),
    (D_HEAD, "head_dim d_kv kv_channels d_head attention_head_dim dim_head swa_head_dim"),
    (
        VOCABULARY,
        """vocab_size decoder_vocab_size src_vocab_size tgt_vocab_size vocab_size_per_layer_input unpadded_vocab_size
        char_vocab_size t2u_vocab_size""",
    ),
    (
        96,
        """intermediate_size n_inner d_ff ffn_dim hidden_dim encoder_ffn_dim decoder_ffn_dim dff dim_ff ffn_hidden_size
        intermediate_size_mlp dense_intermediate_size prefix_dense_intermediate_size d_inner""",
    ),
    (
        256,
        """max_position_embeddings n_positions max_seq_len max_sequence_length seq_length n_ctx model_max_length
        max_source_positions max_target_positions max_encoder_position_embeddings max_decoder_position_embeddings
        context_length""",
    ),
    # Feed-forward experts.
    (4, "num_experts num_local_experts n_routed_experts moe_num_experts"),
    (2, "num_experts_per_tok num_experts_per_token moe_k moe_top_k moe_topk zero_expert_num top_k_experts"),
    (
        1,
        """n_group topk_group num_expert_group first_k_dense_replace num_dense_layers n_shared_experts num_shared_experts
        moe_num_shared_experts moe_layer_start_index""",
    ),
    (
        32,
        """moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size
        shared_intermediate_size expert_ffn_hidden_size shared_experts_intermediate_size""",
    ),
    # Low-rank queries, keys and values (MLA); heads that choose keys for sparse attention.
    (24, "q_lora_rank"),
    (16, "kv_lora_rank qk_nope_head_dim o_lora_rank index_head_dim indexer_head_dim index_topk indexer_budget"),
    (12, "v_head_dim"),
    (8, "qk_rope_head_dim rotary_dim"),
    (4, "index_n_heads indexer_n_heads index_block_size indexer_compress_ratio index_kpool"),
    (3, "index_topk_blocks"),
    (2, "o_groups hc_count hc_mult"),
    (1, "index_kv_heads indexer_kv_heads"),
    # Windows, chunks and distances.
    (16, "local_attention rel_extent"),
    (
        8,
        """sliding_window attention_chunk_size window_size attention_window_size sliding_window_size local_radius
        keep_window_size local_attention_window_len d_rel relative_attention_num_buckets num_buckets""",
    ),
    (16, "relative_attention_max_distance relative_max_distance"),
    # State spaces and linear attention.
    (8, "mamba_d_state ssm_state_size state_size mamba_n_heads mamba_num_heads n_mamba_heads"),
    (16, "mamba_d_head mamba_head_dim mamba_headdim linear_key_head_dim linear_value_head_dim linear_head_dim"),
    (4, "mamba_dt_rank linear_num_value_heads linear_num_heads"),
    (2, "linear_num_key_heads"),
    (1, "mamba_n_groups mamba_ngroups n_groups num_mem_blocks"),
    (128, "mamba_d_ssm"),
    # What single families call their own.
    (32, "embedding_size intra_bottleneck_size true_hidden_size global_head_dim prompt_mid_dim embedding_rank"),
    (16, "entity_emb_size entity_vocab_size router_hidden_size hc_lowrank prompt_length lang_embed_dim spkr_embed_dim"),
    (8, "hidden_size_per_layer_input laurel_rank gated_norm_rank num_mel_bins"),
    (4, "adapter_rank n_layers_per_attn_res_block"),
    (2, "num_kv_shared_layers n_langs"),
    (1, "num_global_key_value_heads num_layers_per_stack num_codebooks"),
    (0, "num_nextn_predict_layers num_mtp_layers pad_token_id"),
    (1, "bos_token_id decoder_start_token_id"),
    (2, "eos_token_id"),
)
SIZES: Mapping[str, int] = {name: size for size, names in _VALUES for name in names.split()}

# Left out by default in some configurations, and wanted all the same: groups and windows are what is to be tried.
EVEN_WHERE_NONE = frozenset(
    {
        "num_key_value_heads", "head_dim", "sliding_window", "pad_token_id", "bos_token_id", "eos_token_id", "vocab_size",
        "num_experts_per_tok", "n_routed_experts", "n_group", "topk_group", "n_shared_experts", "decoder_start_token_id",
    }
)  # fmt: skip

# Towers that read images or sounds are built and never run on text: small, and otherwise as they are.
TOWER_SIZES: Mapping[str, int] = {
    name: size
    for size, names in (
        (64, "hidden_size embed_dim d_model out_hidden_size output_dim projection_dim"),
        (2, "num_hidden_layers depth encoder_layers num_layers layers"),
        (4, "num_attention_heads num_heads encoder_attention_heads num_key_value_heads"),
        (96, "intermediate_size encoder_ffn_dim mlp_dim projection_intermediate_size"),
        (32, "downsample_hidden_size codebook_dim latent_channels base_channels"),
        (64, "num_embeddings codebook_size"),
    )
    for name in names.split()
}
TOWER = (
    "vision",
    "audio",
    "image",
    "speech",
    "vq",
    "sam",
    "resampler",
    "perceiver",
    "codec",
    "protein",
    "dit",
    "bigvgan",
)
