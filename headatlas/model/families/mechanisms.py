"""Which mechanisms a model's attention has, read off its configuration, its modules and their code.

A tag says why a row is in the table: two families with the same tags fail for the same reasons.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


class Parts:
    """What tags are read from: the text configuration's fields, the modules' class names, and attention's source."""

    def __init__(self, model: nn.Module) -> None:
        config: Any = model.config
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        self.model = model
        self.fields: Mapping[str, Any] = {**vars(config), **vars(text)}
        self.classes = " ".join(sorted({type(module).__name__ for module in model.modules()}))
        attention = {type(module) for module in model.modules() if "Attention" in type(module).__name__}
        attention = {kind for kind in attention if not re.search("Vision|Audio|CLIP", kind.__name__)}
        eager = {getattr(sys.modules[kind.__module__], "eager_attention_forward", None) for kind in attention}
        self.code = "\n".join(_source(part) for part in (*attention, *eager) if part is not None)
        self.parameters = " ".join(name for name, _ in model.named_parameters())
        self.kinds = " ".join(map(str, self.fields.get("layer_types") or self.fields.get("layers_block_type") or ()))

    def number(self, *names: str) -> int:
        """The first of these fields that is a number, or 0."""
        found = (self.fields.get(name) for name in names)
        return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), 0)

    def has(self, pattern: str, text: str) -> bool:
        """Whether a regular expression is found."""
        return re.search(pattern, text) is not None


def _source(kind: Any) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def _grouped(parts: Parts) -> bool:
    heads = parts.number("num_attention_heads", "n_head", "num_heads")
    return 0 < parts.number("num_key_value_heads", "num_kv_heads") < heads


def _gated(parts: Parts) -> bool:
    return parts.has(r"attn_output\s*(=\s*attn_output\s*)?\*=?\s*.*(gate|sigmoid)|gate.*\*\s*attn_output", parts.code)


def _sized_by_layer(parts: Parts) -> bool:
    """Whether attention modules of one class have weights of different shapes."""
    shapes: dict[type, set[tuple[torch.Size, ...]]] = {}
    for module in parts.model.modules():
        if "Attention" in type(module).__name__:
            found = tuple(weight.shape for weight in module.parameters() if weight.ndim == 2)
            shapes.setdefault(type(module), set()).add(found)
    return any(len(found) > 1 for found in shapes.values())


TAGS: Mapping[str, Callable[[Parts], bool]] = {
    "grouped": _grouped,
    "low-rank (MLA)": lambda p: p.number("kv_lora_rank") > 0,
    "sparse top-k": lambda p: p.number("index_topk", "indexer_budget", "index_topk_blocks") > 0,
    "compressed keys": lambda p: p.has("compressed", p.kinds),
    "window": lambda p: p.has("sliding|local", p.kinds) or p.number("local_attention", "attention_window_size") > 0,
    "chunks": lambda p: p.has("chunked", p.kinds),
    "sink logit": lambda p: p.has(r"\.sinks\b", p.parameters) and not p.has("logsumexp", p.code),
    "sink factor": lambda p: p.has(r"\.sinks\b", p.parameters) and p.has("logsumexp", p.code),
    "output gate": _gated,
    "softcap": lambda p: p.fields.get("attn_logit_softcapping") is not None,
    "norm of q and k": lambda p: p.has(r"\.(q_norm|q_layernorm|query_norm)\.", p.parameters),
    "ALiBi": lambda p: bool(p.fields.get("alibi")) or p.has("alibi", p.code),
    "relative positions": lambda p: p.has("relative_attention_bias|rel_pos|relative_position", p.parameters + p.code),
    "shared KV": lambda p: p.number("num_kv_shared_layers") > 0 or p.has("shared_kv|kv_source", p.code),
    "per-layer sizes": _sized_by_layer,
    "shared blocks": lambda p: "num_hidden_groups" in p.fields or "H_cycles" in p.fields,
    "several streams": lambda p: p.number("hc_count", "hc_mult", "altup_num_inputs") > 1,
    "hybrid: state space": lambda p: p.has("A_log", p.parameters) and not p.has("Delta", p.classes),
    "hybrid: delta": lambda p: p.has("Delta", p.classes),
    "hybrid: linear attention": lambda p: p.has("linear", p.kinds) and not p.has("A_log", p.parameters),
    "hybrid: convolution": lambda p: p.has("ShortConv", p.classes),
    "hybrid: recurrence": lambda p: p.has(r"RgLru|Rwkv|LSTM", p.classes),
    "experts": lambda p: p.has(r"Experts|Moe|MoE|SparseM", p.classes),
    "encoder and decoder": lambda p: "decoder_input_ids" in inspect.signature(p.model.forward).parameters,
    "images or sounds": lambda p: any("vision" in n or "audio" in n for n, v in p.fields.items() if v is not None and n.endswith("_config")),
}  # fmt: skip


def mechanisms(model: nn.Module) -> tuple[str, ...]:
    """The tags of a model, in the order of `TAGS`."""
    parts = Parts(model)
    return tuple(tag for tag, holds in TAGS.items() if holds(parts))
