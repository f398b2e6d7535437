"""What single classes need beyond the tiny sizes, each with its reason, and variants with a mechanism of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headatlas.model.families.shrink import LEFT_OUT


@dataclass(frozen=True)
class Override:
    """Fields that a class needs, and why. needs: what it demands beside text, so that it cannot run on text alone."""

    changes: Mapping[str, Any]
    why: str
    gain: float = 1.0
    needs: str = ""


@dataclass(frozen=True)
class Variant:
    """A class built another way, for a mechanism that its defaults leave out."""

    architecture: str
    name: str
    changes: Mapping[str, Any]
    why: str
    gain: float = field(default=1.0)

    @property
    def full_name(self) -> str:
        """The class and what is special, as the table shows it."""
        return f"{self.architecture}:{self.name}"


LOCAL_AND_FULL = ["sliding_attention", "full_attention"] * 2
LINEAR_AND_FULL = ["linear_attention", "full_attention"] * 2
MIXED = "its default pattern has no attention among so few layers"
WHOLE = "its heads' widths are no product of the shared sizes"
LATENT = {"num_key_value_heads": 4}
DOTS3 = {
    **LATENT, "sliding_window": 8, "head_dim": 24, "swa_num_attention_heads": 2, "swa_num_key_value_heads": 2,
    "swa_q_lora_rank": 24, "swa_kv_lora_rank": 16, "swa_head_dim": 24, "swa_qk_nope_head_dim": 16, "swa_v_head_dim": 12,
    "layer_types": ["indexed_attention", "sliding_attention"] * 2,
}  # fmt: skip
COMPASS = {
    "layer_types": LOCAL_AND_FULL,
    "rope_parameters": {
        kind: {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]} for kind in LOCAL_AND_FULL
    },
}
QWEN4 = {
    "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 16,
    "indexer_compress_ratio": 4, "layer_types": ["linear_attention", "indexed_attention"] * 2,
}  # fmt: skip
MINIMAX3 = {"layer_types": ["full_attention", "minimax_m3_sparse"] * 2}
GLM5 = {**LATENT, "qk_rope_head_dim": 0, "head_dim": LEFT_OUT}
DECODERS = (
    "BertLMHeadModel", "BigBirdForCausalLM", "BertGenerationDecoder", "CamembertForCausalLM", "Data2VecTextForCausalLM",
    "ElectraForCausalLM", "ErnieForCausalLM", "MegatronBertForCausalLM", "RemBertForCausalLM", "RobertaForCausalLM",
    "RobertaPreLayerNormForCausalLM", "RoCBertForCausalLM", "RoFormerForCausalLM", "XLMRobertaForCausalLM",
    "XLMRobertaXLForCausalLM",
)  # fmt: skip
DECODER = Override({"is_decoder": True}, "an encoder's class that is a decoder only when it is told so")
AXIAL = {
    "axial_pos_embds_dim": (16, 48), "axial_pos_shape": (16, 16), "attn_layers": ["local", "lsh", "local", "lsh"],
    "num_buckets": 4, "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8, "feed_forward_size": 96,
    "attention_head_size": 16,
}  # fmt: skip


def under(prefix: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same changes, one configuration further in."""
    return {f"{prefix}.{name}": value for name, value in changes.items()}


def pixels(*names: str) -> dict[str, Override]:
    """Classes that demand an image."""
    return {name: Override({}, "cannot run on text alone", needs="pixel_values") for name in names}


OVERRIDES: Mapping[str, Override] = {
    **dict.fromkeys(DECODERS, DECODER),
    **pixels(
        "Blip2ForConditionalGeneration", "BlipForConditionalGeneration", "InstructBlipForConditionalGeneration",
        "InstructBlipVideoForConditionalGeneration", "IdeficsForVisionText2Text", "Kosmos2ForConditionalGeneration",
    ),
    "BambaForCausalLM": Override({"attn_layer_indices": [1, 3]}, MIXED),
    "JambaForCausalLM": Override({"attn_layer_period": 2, "attn_layer_offset": 1}, MIXED),
    "GraniteMoeHybridForCausalLM": Override(
        {"layer_types": LINEAR_AND_FULL, "mamba_n_heads": 8, "mamba_d_head": 16}, MIXED
    ),
    "Lfm2MoeForCausalLM": Override({"layer_types": ["conv", "full_attention"] * 2, "head_dim": LEFT_OUT}, MIXED),
    "CohereCompassForCausalLM": Override(COMPASS, "its rotary parameters are by kind of layer"),
    "CohereCompassForConditionalGeneration": Override(
        under("text_config", COMPASS), "its rotary parameters are by kind of layer"
    ),
    "DbrxForCausalLM": Override(
        {
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            "ffn_config": {
                "hidden_size": 64, "ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2,
                "ffn_act_fn": {"name": "silu"},
            },
        },
        "its attention reads a field that its own default configuration lacks",
    ),
    "Dots3NoteForCausalLM": Override(DOTS3, "its layers with a window have sizes of their own"),
    "Dots3NoteTextModel": Override(DOTS3, "its layers with a window have sizes of their own"),
    "LagunaForCausalLM": Override(
        {"layer_types": LOCAL_AND_FULL, "num_attention_heads_per_layer": [4, 8, 4, 8]}, "as many heads as a layer has"
    ),
    "MPNetForMaskedLM": Override({"relative_attention_num_buckets": 32}, "its code fixes the buckets"),
    "NeoMMEForMaskedLM": Override({"rope_parameters": LEFT_OUT}, "its rotary parameters are by kind of layer"),
    "UnlimitedOcrForConditionalGeneration": Override(
        {"text_config.num_key_value_heads": 4}, "its own eager attention knows no groups"
    ),
    "MiniMaxM3VLForCausalLM": Override(MINIMAX3, "sparse attention, and in every other layer"),
    "MiniMaxM3SparseForConditionalGeneration": Override(
        under("text_config", MINIMAX3), "sparse attention, and in every other layer"
    ),
    "HrmTextForCausalLM": Override({"num_layers_per_stack": LEFT_OUT}, "counts its layers from those of a stack"),
    "xLSTMForCausalLM": Override({"hidden_size": 128, "embedding_dim": 128}, "its widths are multiples of 64"),
    "BltForCausalLM": Override({"encoder_hash_byte_group_vocab": 200, "num_hidden_layers": 4}, "its tables of bytes"),
    "T5GemmaEncoderModel": Override({"is_encoder_decoder": False}, "an encoder alone"),
    "Ernie4_5_VLMoeForConditionalGeneration": Override(
        {"text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 4]}},
        "its sections stand in another order",
    ),
    "DiffusionGemmaForBlockDiffusion": Override(
        {
            "text_config.num_experts": 4, "text_config.top_k_experts": 2, "text_config.moe_intermediate_size": 32,
            "canvas_length": 8,
        },
        "has no default for its experts",
    ),
    "Qwen4ExpForCausalLM": Override(QWEN4, "sparse attention, off by default"),
    "Qwen4ExpTextModel": Override(QWEN4, "sparse attention, off by default"),
    "Qwen4ExpForConditionalGeneration": Override(under("text_config", QWEN4), "sparse attention, off by default"),
    "Glm5NextTextModel": Override(GLM5, "its sparse attention has no rotary part"),
    "Glm5NextForConditionalGeneration": Override(under("text_config", GLM5), "its sparse attention has no rotary part"),
    "LongcatFlashForCausalLM": Override(
        {"num_layers": 2, "num_hidden_layers": 4, **LATENT, "head_dim": 8}, "two attentions in a layer"
    ),
    "ZayaForCausalLM": Override(
        {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid_sliding"] * 2}, "takes one expert a token"
    ),
    "Mamba2ForCausalLM": Override({"num_heads": 8, "head_dim": 16, "expand": 2}, WHOLE),
    "XmodForCausalLM": Override({"is_decoder": True, "default_language": "en_XX"}, "a language must be chosen"),
    "XmodForMaskedLM": Override({"default_language": "en_XX"}, "a language must be chosen"),
    "ReformerForMaskedLM": Override({**AXIAL, "is_decoder": False}, "its axial positions multiply to the length"),
    "ReformerModel": Override({**AXIAL, "is_decoder": False}, "its axial positions multiply to the length"),
    "ReformerModelWithLMHead": Override({**AXIAL, "is_decoder": True}, "its axial positions multiply to the length"),
    "SqueezeBertForMaskedLM": Override({"embedding_size": 64}, "has no map from embeddings to another width"),
    "SqueezeBertModel": Override({"embedding_size": 64}, "has no map from embeddings to another width"),
    "EncoderDecoderModel": Override(
        {"decoder.is_decoder": True, "decoder.add_cross_attention": True}, "its decoder is an encoder unless it is told"
    ),
    "LEDForConditionalGeneration": Override({"attention_window": [8] * 4}, "one window a layer"),
    "LongformerForMaskedLM": Override({"attention_window": [8] * 4}, "one window a layer"),
    "LongformerModel": Override({"attention_window": [8] * 4}, "one window a layer"),
    "EsmForMaskedLM": Override({"mask_token_id": 3, "token_dropout": False}, "its tokens have no default"),
    "MobileBertForMaskedLM": Override({}, "without norms that hold activations down", gain=0.5),
    "MobileBertModel": Override({}, "without norms that hold activations down", gain=0.5),
    "ProphetNetForCausalLM": Override({"num_buckets": 32, "relative_max_distance": 128}, "two streams share buckets"),
    "PerceiverForMaskedLM": Override(
        {
            "d_latents": 64, "num_latents": 8, "num_self_attends_per_block": 4, "num_self_attention_heads": 4,
            "num_cross_attention_heads": 4, "qk_channels": 64, "v_channels": 64, "max_position_embeddings": 40,
        },
        "names of its own",
    ),
    "ChameleonForConditionalGeneration": Override({"vocabulary_map": {"<image>": 190}}, "has no map of its image tokens"),
    "Emu3ForConditionalGeneration": Override({"vocabulary_map": {"<image>": 190}}, "has no map of its image tokens"),
    "Dots3NoteForConditionalGeneration": Override(
        {**under("text_config", DOTS3), "vision_config.mlp_layer_types": ["dense", "dense"], "vision_config.adapter_in_dim": 64,
         "vision_config.adapter_out_dim": 64, "audio_config.adapter_input_size": 64, "audio_config.adapter_out_dim": 64},
        "its layers with a window have sizes of their own",
    ),
    "FunAsrNanoForConditionalGeneration": Override({"adaptor_config.intermediate_size": 16}, "its adaptor's width"),
    "InklingForConditionalGeneration": Override(
        {"vision_config.text_hidden_size": 64, "audio_config.text_hidden_size": 64, "vision_config.patch_size": 2},
        "its towers end in the text's width",
    ),
    "Inkling2ForConditionalGeneration": Override(
        {"vision_config.text_hidden_size": 64, "audio_config.text_hidden_size": 64}, "its towers end in the text's width"
    ),
    "Granite4VisionForConditionalGeneration": Override(
        {"deepstack_layer_map": [], "downsample_rate": "4/8"}, "has no default for its downsampling"
    ),
    "Molmo2ForConditionalGeneration": Override(
        {"adapter_config.vision_feature_layer": [1, 0], "adapter_config.text_hidden_size": 64}, "counts its tower's layers"
    ),
    "DeepseekOcr2ForConditionalGeneration": Override(
        {"text_config.mlp_layer_types": ["dense", "sparse"] * 2}, "has no default for its kinds of layers"
    ),
    "KyutaiSpeechToTextForConditionalGeneration": Override(
        {"codec_config.upsample_groups": 64}, "cannot run on text alone", needs="codes of sounds"
    ),
    "MuseGlimmerForConditionalGeneration": Override({"projector_hidden_size": 64}, "its projector's width"),
    "Florence2ForConditionalGeneration": Override(
        {"vision_config.embed_dim": (32,) * 4, "vision_config.num_heads": (4,) * 4, "vision_config.num_groups": (4,) * 4},
        "its tower's widths are lists",
    ),
    **dict.fromkeys(
        ("Qwen2_5OmniThinkerForConditionalGeneration", "Qwen3OmniMoeThinkerForConditionalGeneration"),
        Override({"vision_start_token_id": 190}, "its own code reads a field that its default configuration lacks"),
    ),
    "NemotronH_Omni_Reasoning_V3": Override({"vision_config.video_temporal_patch_size": 2}, "says it twice"),
    "PI0ForConditionalGeneration": Override({}, "cannot run on text alone", needs="state"),
    "VoxtralRealtimeForConditionalGeneration": Override({}, "cannot run on text alone", needs="input_features"),
    "UdopForConditionalGeneration": Override({}, "cannot run on text alone", needs="bbox"),
    "MistralLarge4ForConditionalGeneration": Override({"text_config.num_key_value_heads": 4}, "low-rank attention"),
    "GPTNeoForCausalLM": Override({"attention_types": [[["global", "local"], 2]]}, "kinds of layers in a form of its own"),
    "ModernBertDecoderForCausalLM": Override({"layer_types": LOCAL_AND_FULL}, "a window in every other layer"),
    "ModernBertForMaskedLM": Override({"layer_types": LOCAL_AND_FULL}, "a window in every other layer"),
}  # fmt: skip

VARIANTS: tuple[Variant, ...] = (
    Variant("Gemma4ForCausalLM", "shared-kv", {"num_kv_shared_layers": 2, "layer_types": LOCAL_AND_FULL}, "shared KV"),
    Variant(
        "Gemma4ForCausalLM", "keys-as-values",
        {"attention_k_eq_v": True, "num_global_key_value_heads": 1, "layer_types": LOCAL_AND_FULL}, "keys are the values",
    ),
    Variant(
        "Gemma4ForCausalLM", "experts",
        {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "layer_types": LOCAL_AND_FULL, "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2,
         "moe_intermediate_size": 32},
        "experts beside the feed-forward layer",
    ),
    Variant("FalconForCausalLM", "grouped", {"new_decoder_architecture": True, "num_kv_heads": 2}, "groups"),
    Variant(
        "FalconForCausalLM", "alibi",
        {"multi_query": False, "alibi": True, "parallel_attn": False, "bias": True, "num_kv_heads": 4},
        "ALiBi",
    ),
    Variant("LagunaForCausalLM", "wide", {"head_dim": 32}, "heads wider than the stream, so widths tell maps apart"),
    Variant("Lfm3ForCausalLM", "wide", {"head_dim": 32}, "heads wider than the stream, so widths tell maps apart"),
    Variant("KimiLinearForCausalLM", "all-full", {"layer_types": ["full_attention"] * 4}, "softmax attention alone"),
)  # fmt: skip
