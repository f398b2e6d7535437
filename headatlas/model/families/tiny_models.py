"""Tiny models with random weights, one per family, so that every claim about a family can be run in a second.

A recipe is a transformers architecture and the sizes that make it tiny. `SHAPE` holds what all share; a family names
only what it adds. Weights are drawn from a fixed seed and spread out, because transformers' own start values are so small
that every attention row would be nearly uniform and many mistakes would not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import nn

from headatlas.registry import lookup

SHAPE: Mapping[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DECODER = {"decoder": (0, 1, 2)}
ENCODER = {"encoder": (0, 1, 2)}
BOTH = {"encoder": (0, 1, 2), "decoder": (0, 1, 2), "cross": (0, 1, 2)}


@dataclass(frozen=True)
class Family:
    """One recipe, and what its authors say it has; the matrix compares that with what the loaded model shows.

    sizes: None leaves a shared size out, for families that cannot take it.
    stacks: which layers of which stack attend. groups: key/value heads. reach: how many places back
    its local layers see.
    post_norm: a norm or a scale per channel lies between the heads' writes and the residual stream. multiplier: the
    factor on them there. gain: how far weights are spread out; less where no norm holds the activations down.
    """

    name: str
    architecture: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    stacks: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: DECODER)
    groups: int = 4
    reach: int | None = None
    post_norm: bool = False
    multiplier: float = 1.0
    gain: float = 1.5

    def build(self, *, dtype: torch.dtype = torch.float32, **changes: Any) -> nn.Module:
        """The tiny model, with the same weights each time; `changes` override sizes."""
        kind = getattr(transformers, self.architecture)
        torch.manual_seed(0)
        sizes = {name: size for name, size in {**SHAPE, **self.sizes, **changes}.items() if size is not None}
        model: nn.Module = kind(kind.config_class(**sizes)).eval()
        return spread(model, self.gain).to(dtype)


def spread(model: nn.Module, gain: float) -> nn.Module:
    """Draw the weights anew: matrices of this gain, biases and norm gains off their neutral values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.ndim >= 2:
                parameter.copy_(noise * gain * parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(0.2 * noise)
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0  # as in every trained model: some mix neighbours in (MobileBERT)
    return model


GROUPED = {"num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 16}  # heads whose widths do not add up to the model's
LOCAL = {"sliding_window": 16}
MIXED = {**LOCAL, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_local_experts": 4}
ROUTED = {**EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = {"q_lora_rank": 12, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 10}
TRANSLATOR = {
    "d_model": 32, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 2,
}  # fmt: skip
T5 = {"d_kv": 8, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 3, "decoder_start_token_id": 0}
ROBERTA = {"pad_token_id": 1, "bos_token_id": 0, "max_position_embeddings": 130}
PATCHES = {"image_size": 32, "patch_size": 8}


def _families() -> list[Family]:
    f = Family
    return [
        f("gpt2", "GPT2LMHeadModel"),
        f("gpt-bigcode", "GPTBigCodeForCausalLM", groups=1),
        f("gpt-neox", "GPTNeoXForCausalLM"),
        f("gpt-neo", "GPTNeoForCausalLM",
          {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 16}, reach=15),
        f("gptj", "GPTJForCausalLM", {"rotary_dim": 4}),
        f("bloom", "BloomForCausalLM"),
        f("falcon", "FalconForCausalLM", groups=1),
        f("falcon-grouped", "FalconForCausalLM", {"new_decoder_architecture": True, "num_kv_heads": 2}, groups=2),
        f("falcon-alibi", "FalconForCausalLM", {"multi_query": False, "alibi": True, "parallel_attn": False, "bias": True}),
        f("falcon-h1", "FalconH1ForCausalLM",
          {**GROUPED, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1,
           "attention_out_multiplier": 0.5}, groups=2, multiplier=0.5),
        f("opt", "OPTForCausalLM", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
        f("biogpt", "BioGptForCausalLM"),
        f("ctrl", "CTRLLMHeadModel"),
        f("llama", "LlamaForCausalLM", GROUPED, groups=2),
        f("llama4", "Llama4ForCausalLM",
          {**GROUPED, "head_dim": 8, "num_local_experts": 2, "attention_chunk_size": 16, "intermediate_size_mlp": 48,
           "no_rope_layers": [1, 1, 0]}, groups=2, reach=15),
        f("mistral", "MistralForCausalLM", {**GROUPED, **LOCAL}, groups=2, reach=15),
        f("mixtral", "MixtralForCausalLM", {**GROUPED, **EXPERTS}, groups=2),
        f("qwen2", "Qwen2ForCausalLM", GROUPED, groups=2),
        f("qwen2-moe", "Qwen2MoeForCausalLM", {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 16}, groups=2),
        f("qwen3", "Qwen3ForCausalLM", WIDE, groups=2),
        f("qwen3-moe", "Qwen3MoeForCausalLM", {**WIDE, **EXPERTS}, groups=2),
        f("minimax", "MiniMaxForCausalLM", {**GROUPED, **EXPERTS, "head_dim": 8}, stacks={"decoder": (0, 2)}, groups=2),
        f("qwen3-next", "Qwen3NextForCausalLM",
          {**WIDE, **EXPERTS, "shared_expert_intermediate_size": 16, "linear_num_value_heads": 4,
           "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
           "layer_types": ["linear_attention", "full_attention", "full_attention"]},
          {"decoder": (1, 2)}, groups=2),
        f("gemma", "GemmaForCausalLM", {"num_key_value_heads": 1, "head_dim": 16}, groups=1),
        f("gemma2", "Gemma2ForCausalLM", {**WIDE, **MIXED}, groups=2, reach=15, post_norm=True),
        f("gemma3", "Gemma3ForCausalLM", {**MIXED, "num_key_value_heads": 1, "head_dim": 16},
          groups=1, reach=15, post_norm=True),
        f("vaultgemma", "VaultGemmaForCausalLM", {**WIDE, **MIXED}, groups=2, reach=15),
        f("phi", "PhiForCausalLM"),
        f("phi3", "Phi3ForCausalLM", {**GROUPED, **LOCAL}, groups=2, reach=15),
        f("phimoe", "PhimoeForCausalLM", {**GROUPED, **EXPERTS}, groups=2),
        f("olmo", "OlmoForCausalLM", {**GROUPED, "clip_qkv": 1.0}, groups=2),
        f("olmo2", "Olmo2ForCausalLM", GROUPED, groups=2, post_norm=True),
        f("olmo3", "Olmo3ForCausalLM", {**GROUPED, **MIXED}, groups=2, reach=15, post_norm=True),
        f("olmoe", "OlmoeForCausalLM", {**GROUPED, **EXPERTS}, groups=2),
        f("starcoder2", "Starcoder2ForCausalLM", {**GROUPED, **LOCAL}, groups=2, reach=15),
        f("stablelm", "StableLmForCausalLM", GROUPED, groups=2),
        f("cohere", "CohereForCausalLM", GROUPED, groups=2),
        f("cohere2", "Cohere2ForCausalLM", {**GROUPED, **MIXED}, groups=2, reach=15),
        f("smollm3", "SmolLM3ForCausalLM", GROUPED, groups=2),
        f("granite", "GraniteForCausalLM", {**GROUPED, "residual_multiplier": 0.22, "attention_multiplier": 0.3},
          groups=2, multiplier=0.22),
        f("granite-moe", "GraniteMoeForCausalLM", {**GROUPED, **EXPERTS, "residual_multiplier": 0.22},
          groups=2, multiplier=0.22),
        f("gpt-oss", "GptOssForCausalLM", {**WIDE, **MIXED, **EXPERTS}, groups=2, reach=15),
        f("deepseek-v2", "DeepseekV2ForCausalLM", {**LATENT, **ROUTED}),
        f("deepseek-v3", "DeepseekV3ForCausalLM", {**LATENT, **ROUTED, "num_key_value_heads": 4}),
        f("nemotron", "NemotronForCausalLM", GROUPED, groups=2),
        f("glm", "GlmForCausalLM", {**GROUPED, "head_dim": 8}, groups=2),
        f("glm4", "Glm4ForCausalLM", {**GROUPED, "head_dim": 8}, groups=2, post_norm=True),
        f("glm4-moe", "Glm4MoeForCausalLM", {**GROUPED, **ROUTED, "head_dim": 8}, groups=2),
        f("ernie4.5", "Ernie4_5ForCausalLM", GROUPED, groups=2),
        f("exaone4", "Exaone4ForCausalLM", {**GROUPED, **MIXED}, groups=2, reach=15, post_norm=True),
        f("hunyuan", "HunYuanDenseV1ForCausalLM", {**GROUPED, "head_dim": 8}, groups=2),
        f("seed-oss", "SeedOssForCausalLM", {**GROUPED, "head_dim": 8}, groups=2),
        f("helium", "HeliumForCausalLM", {**GROUPED, "head_dim": 8}, groups=2),
        f("persimmon", "PersimmonForCausalLM"),
        f("apertus", "ApertusForCausalLM", GROUPED, groups=2),
        f("arcee", "ArceeForCausalLM", GROUPED, groups=2),
        f("bitnet", "BitNetForCausalLM", GROUPED, groups=2),
        f("nanochat", "NanoChatForCausalLM", GROUPED, groups=2),
        f("doge", "DogeForCausalLM", GROUPED, groups=2),
        f("afmoe", "AfmoeForCausalLM", {**GROUPED, **MIXED, "num_dense_layers": 3}, groups=2, reach=15, post_norm=True),
        f("lfm2", "Lfm2ForCausalLM", {**GROUPED, "layer_types": ["conv", "full_attention", "full_attention"]},
          {"decoder": (1, 2)}, groups=2),
        f("jamba", "JambaForCausalLM",
          {**GROUPED, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
          {"decoder": (1,)}, groups=2),
        f("bamba", "BambaForCausalLM",
          {**GROUPED, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
          {"decoder": (1,)}, groups=2),
        f("recurrent-gemma", "RecurrentGemmaForCausalLM", {"attention_window_size": 16}, {"decoder": (2,)}, reach=15),
        f("bert", "BertModel", stacks=ENCODER),
        f("bert-masked", "BertForMaskedLM", stacks=ENCODER),
        f("roberta", "RobertaModel", ROBERTA, ENCODER),
        f("xlm-roberta", "XLMRobertaModel", ROBERTA, ENCODER),
        f("camembert", "CamembertModel", ROBERTA, ENCODER),
        f("distilbert", "DistilBertModel", {"hidden_dim": 48}, ENCODER),
        f("electra", "ElectraModel", {"embedding_size": 16}, ENCODER),
        f("ernie", "ErnieModel", stacks=ENCODER),
        f("mobilebert", "MobileBertModel", stacks=ENCODER, gain=0.5),
        f("esm", "EsmModel", {"position_embedding_type": "rotary", "token_dropout": False}, ENCODER),
        f("modernbert", "ModernBertModel", {"local_attention": 16, "global_attn_every_n_layers": 3}, ENCODER, reach=8),
        f("modernbert-decoder", "ModernBertDecoderForCausalLM",
          {"local_attention": 32, "global_attn_every_n_layers": 3}, reach=15),
        f("nomic-bert", "NomicBertModel", stacks=ENCODER),
        f("eurobert", "EuroBertModel", GROUPED, ENCODER, groups=2),
        f("albert", "AlbertModel", {"embedding_size": 16}, ENCODER),
        f("t5", "T5ForConditionalGeneration", T5, BOTH),
        f("mt5", "MT5ForConditionalGeneration", T5, BOTH),
        f("umt5", "UMT5ForConditionalGeneration", T5, BOTH),
        f("switch", "SwitchTransformersForConditionalGeneration", {**T5, "num_experts": 2}, BOTH),
        f("bart", "BartForConditionalGeneration", TRANSLATOR, BOTH),
        f("mbart", "MBartForConditionalGeneration", TRANSLATOR, BOTH),
        f("pegasus", "PegasusForConditionalGeneration", TRANSLATOR, BOTH),
        f("marian", "MarianMTModel", TRANSLATOR, BOTH),
        f("m2m100", "M2M100ForConditionalGeneration", TRANSLATOR, BOTH),
        f("blenderbot", "BlenderbotForConditionalGeneration", TRANSLATOR, BOTH),
        f("whisper", "WhisperForConditionalGeneration",
          {**TRANSLATOR, "max_source_positions": 20, "max_target_positions": 128, "num_mel_bins": 8}, BOTH),
        f("vit", "ViTModel", PATCHES, ENCODER),
        f("deit", "DeiTModel", PATCHES, ENCODER),
        f("dinov2", "Dinov2Model", PATCHES, ENCODER, post_norm=True),
    ]  # fmt: skip


def _refused() -> list[Family]:
    f = Family
    return [
        f("mpt", "MptForCausalLM"),
        f("codegen", "CodeGenForCausalLM", {"rotary_dim": 4}),
        f("xglm", "XGLMForCausalLM", {"d_model": 32, "ffn_dim": 48}),
        f("openai-gpt", "OpenAIGPTLMHeadModel"),
        f("deberta", "DebertaModel", stacks=ENCODER),
        f("deberta-v2", "DebertaV2Model", stacks=ENCODER),
        f("mpnet", "MPNetModel", stacks=ENCODER),
        f("convbert", "ConvBertModel", {"head_ratio": 1}, ENCODER),
        f("roformer", "RoFormerModel", stacks=ENCODER),
        f("rembert", "RemBertModel", stacks=ENCODER),
        f("nystromformer", "NystromformerModel", stacks=ENCODER),
        f("longformer", "LongformerModel", {"attention_window": 16}, ENCODER),
        f("big-bird", "BigBirdModel", stacks=ENCODER),
        f("xlnet", "XLNetLMHeadModel", {"d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 48, "max_position_embeddings": None}),
        f("xlm", "XLMModel", stacks=ENCODER),
        f("fnet", "FNetModel", stacks=ENCODER),
        f("led", "LEDForConditionalGeneration", TRANSLATOR, BOTH),
        f("fsmt", "FSMTForConditionalGeneration", TRANSLATOR, BOTH),
        f("diffllama", "DiffLlamaForCausalLM", GROUPED),
        f("mamba", "MambaForCausalLM"),
        f("mamba2", "Mamba2ForCausalLM", {"num_heads": 8, "head_dim": 8}),
        f("rwkv", "RwkvForCausalLM"),
    ]  # fmt: skip


FAMILIES: Mapping[str, Family] = {family.name: family for family in _families()}
REFUSED: Mapping[str, Family] = {family.name: family for family in _refused()}


def all_families() -> tuple[Family, ...]:
    """Every recipe: families that work, then families that are refused."""
    return (*FAMILIES.values(), *REFUSED.values())


def family(name: str) -> Family:
    """The recipe called `name`; raises UnknownName with the nearest."""
    return lookup({**FAMILIES, **REFUSED}, name, "family", "See: headatlas families")
