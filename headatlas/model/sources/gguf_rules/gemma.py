"""Gemma 2 and 3: norms stored with one added, windows in a fixed rhythm, a query scale that the file leaves out."""

from __future__ import annotations

import math

from headatlas.model.sources.gguf_rules.architecture import (
    ATTENTION,
    ENDS,
    HEAD_NORMS,
    RMS,
    Architecture,
    Facts,
    Fields,
    biases,
    grouped,
    plus_one,
)  # fmt: skip

_GEMMA = {
    **ENDS,
    **ATTENTION,
    "blk.*.post_attention_norm": "model.layers.*.post_attention_layernorm",
    "blk.*.ffn_norm": "model.layers.*.pre_feedforward_layernorm",
    "blk.*.ffn_gate": "model.layers.*.mlp.gate_proj",
    "blk.*.ffn_up": "model.layers.*.mlp.up_proj",
    "blk.*.ffn_down": "model.layers.*.mlp.down_proj",
    "blk.*.post_ffw_norm": "model.layers.*.post_feedforward_layernorm",
}
_NORMS = {
    **plus_one("", "output_norm"),
    **plus_one("blk.*.", "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"),
}
_WIDTH = 256  # of the heads of all published Gemmas but the two of 27B


def _query_scale(facts: Facts, largest: int) -> int:
    """What queries are divided by, squared: the head's width, but for the 27B, known by its number of layers.

    A file states it at most as `attention.scale`; for widths of no published model it is not known.
    """
    keys, width = facts.keys, grouped(facts, {})["head_dim"]
    scale = keys.get("attention.scale", 0)
    if scale:
        square = round(scale**-2)  # a whole number in transformers
        if not math.isclose(square * scale**2, 1, rel_tol=1e-6):
            raise keys.refusal("attention.scale", f"{scale} is not one over the square root of a whole number")
        return square
    if keys.require("block_count") == largest:
        return int(keys.require("embedding_length") // keys.same_everywhere("attention.head_count"))
    if width != _WIDTH:
        why = f"the query scale is known for heads of width {_WIDTH}, these have {width}"
        raise keys.refusal("attention.key_length", why)
    return int(width)


def _layers(facts: Facts, window: int, period: int) -> list[str]:
    """Every `period`-th layer sees everything, the others the window; all see everything where there is none."""
    pattern = facts.keys.get("attention.sliding_window_pattern", period)
    count = facts.keys.require("block_count")
    if isinstance(pattern, list):
        local = [bool(entry) for entry in pattern]
        if len(local) != count:
            raise facts.keys.refusal("attention.sliding_window_pattern", f"{len(local)} entries for {count} layers")
    else:
        local = [pattern > 0 and (i + 1) % pattern != 0 for i in range(count)]
    return ["sliding_attention" if window and one else "full_attention" for one in local]


def _gemma2(facts: Facts, found: Fields) -> Fields:
    keys = facts.keys
    window = int(keys.get("attention.sliding_window", 4096))
    if keys.get("rope.freq_base_swa", found["rope_parameters"]["rope_theta"]) != found["rope_parameters"]["rope_theta"]:
        raise keys.refusal("rope.freq_base_swa", "Gemma 2 has one base for all layers")
    return {
        **grouped(facts, found),
        "attention_bias": biases(facts, ("attn_q", "attn_k", "attn_v", "attn_output")),
        "query_pre_attn_scalar": _query_scale(facts, 46),
        "sliding_window": window or None,
        "layer_types": _layers(facts, window, 2),
        # llama.cpp's own values where the file has none
        "attn_logit_softcapping": float(keys.get("attn_logit_softcapping", 50.0)) or None,
        "final_logit_softcapping": float(keys.get("final_logit_softcapping", 30.0)) or None,
    }


def _gemma3(facts: Facts, found: Fields) -> Fields:
    keys = facts.keys
    window = int(keys.get("attention.sliding_window", 0))
    local = {"rope_type": "default", "rope_theta": float(keys.get("rope.freq_base_swa", 10000.0))}
    return {
        **grouped(facts, found),
        "attention_bias": biases(facts, ("attn_q", "attn_k", "attn_v", "attn_output")),
        "query_pre_attn_scalar": _query_scale(facts, 62),
        "sliding_window": window or None,
        "layer_types": _layers(facts, window, 6),
        "rope_parameters": {"full_attention": found["rope_parameters"], "sliding_attention": local},
        "attn_logit_softcapping": float(keys.get("attn_logit_softcapping", 0)) or None,
        "final_logit_softcapping": float(keys.get("final_logit_softcapping", 0)) or None,
    }


GEMMA2 = Architecture("gemma2", "Gemma2Config", RMS, _GEMMA, _NORMS, fields=_gemma2)
GEMMA3 = Architecture(
    "gemma3",
    "Gemma3TextConfig",
    RMS,
    {**_GEMMA, **HEAD_NORMS},
    {**_NORMS, **plus_one("blk.*.", "attn_q_norm", "attn_k_norm")},
    fields=_gemma3,
)
