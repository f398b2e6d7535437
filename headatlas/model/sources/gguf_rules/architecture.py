"""What one architecture of llama.cpp is in transformers: which key fills which field, which tensor which parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headatlas.model.sources.gguf_rules import rotary
from headatlas.model.sources.gguf_rules.metadata import Metadata

Fields = dict[str, Any]
# A tensor as the file has it and the configuration -> as transformers has it, or several by the end of their name.
Change = Callable[[np.ndarray, Fields], "np.ndarray | dict[str, np.ndarray]"]
State = dict[str, np.ndarray]

SIZES: Mapping[str, str] = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
RMS: Mapping[str, str] = {**SIZES, "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
# transformers' names of the blocks that most decoders share; * stands for the number of the layer.
ENDS: Mapping[str, str] = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ATTENTION: Mapping[str, str] = {
    "blk.*.attn_norm": "model.layers.*.input_layernorm",
    "blk.*.attn_q": "model.layers.*.self_attn.q_proj",
    "blk.*.attn_k": "model.layers.*.self_attn.k_proj",
    "blk.*.attn_v": "model.layers.*.self_attn.v_proj",
    "blk.*.attn_output": "model.layers.*.self_attn.o_proj",
}
GATED: Mapping[str, str] = {
    "blk.*.ffn_norm": "model.layers.*.post_attention_layernorm",
    "blk.*.ffn_gate": "model.layers.*.mlp.gate_proj",
    "blk.*.ffn_up": "model.layers.*.mlp.up_proj",
    "blk.*.ffn_down": "model.layers.*.mlp.down_proj",
}
HEAD_NORMS: Mapping[str, str] = {
    "blk.*.attn_q_norm": "model.layers.*.self_attn.q_norm",
    "blk.*.attn_k_norm": "model.layers.*.self_attn.k_norm",
}


@dataclass(frozen=True)
class Facts:
    """What decides about an architecture besides its table: the keys, the names of all tensors, the small tensors.

    small: the tensors of rotary factors, by name, each [rotated width / 2].
    rows: how many rows the table of token embeddings has. layers: how many layers have tensors, up to the last.
    """

    keys: Metadata
    names: frozenset[str]
    small: Mapping[str, np.ndarray]
    rows: int
    layers: int

    def any(self, *leaves: str) -> bool:
        """Whether some layer has a tensor of such a name, as in `attn_q.bias`."""
        return any(name.endswith(tuple(f".{leaf}" for leaf in leaves)) for name in self.names)


@dataclass(frozen=True)
class Architecture:
    """One architecture. Tables first; `fields` adds what a table cannot say.

    config: the configuration's class in transformers. keys: key -> field, each required.
    tensors: tensor without `.weight` or `.bias`, with * for the layer -> parameter without it.
    changes: the same names, with `.weight` where the bias is left alone -> how numbers are put back as transformers
    has them.
    rotary: None, "whole", or "partial" where a part of each head may stay unturned.
    zeros: parameters (with * for the layer) that are zero where the file leaves them out, if the configuration has them.
    merge: puts parts of parameters together once all tensors are read.
    """

    name: str
    config: str
    keys: Mapping[str, str]
    tensors: Mapping[str, str]
    changes: Mapping[str, Change] = field(default_factory=dict)
    rotary: str | None = "whole"
    fields: Callable[[Facts, Fields], Fields] | None = None
    zeros: tuple[str, ...] = ()
    merge: Callable[[State, Fields], None] | None = None

    def configuration(self, facts: Facts) -> Fields:
        """The arguments of the configuration's class. Raises UnsupportedModel for what it cannot hold."""
        keys = facts.keys
        if keys.require("block_count") > facts.layers:  # before anything of that size is built
            raise keys.refusal("block_count", f"{keys.require('block_count')} where tensors have {facts.layers} layers")
        found: Fields = {ours: keys.same_everywhere(theirs) for theirs, ours in self.keys.items()}
        found["vocab_size"] = keys.get("vocab_size", facts.rows)
        if found["vocab_size"] != facts.rows:
            raise keys.refusal("vocab_size", f"{found['vocab_size']} where token_embd.weight has {facts.rows} rows")
        found["tie_word_embeddings"] = "output.weight" not in facts.names
        if self.rotary is not None:
            found["rope_parameters"] = rotary.parameters(
                keys, facts.small, head_width(keys), partial=self.rotary == "partial"
            )
        if self.fields is not None:
            found |= self.fields(facts, found)
        return found


def head_width(keys: Metadata) -> int:
    """The width of each head; queries, keys and values must have the same."""
    even = keys.require("embedding_length") // keys.same_everywhere("attention.head_count")
    width = int(keys.get("attention.key_length", even))
    if keys.get("attention.value_length", width) != width:
        raise keys.refusal("attention.value_length", f"keys have the width {width}")
    return width


def groups(facts: Facts) -> int:
    """The number of key and value heads; as many as query heads where the file does not say."""
    keys = facts.keys
    if keys.get("attention.head_count_kv") is None:
        return int(keys.same_everywhere("attention.head_count"))
    return int(keys.same_everywhere("attention.head_count_kv"))


def grouped(facts: Facts, _: Fields) -> Fields:
    """The fields of grouped heads that state their width."""
    return {"num_key_value_heads": groups(facts), "head_dim": head_width(facts.keys)}


def even_heads(facts: Facts) -> Fields:
    """As `grouped`, for configurations without a field for the width, which is then the model's over the heads'."""
    keys, width = facts.keys, head_width(facts.keys)
    if width * keys.same_everywhere("attention.head_count") != keys.require("embedding_length"):
        raise keys.refusal("attention.key_length", "the heads' widths do not add up to the model's")
    return {"num_key_value_heads": groups(facts)}


def no_window(keys: Metadata) -> None:
    """Refuse a sliding window that could hide something, for architectures of which no model has one."""
    window = keys.get("attention.sliding_window", 0)
    if window and window < keys.require("context_length"):
        raise keys.refusal("attention.sliding_window", f"its value is {window}")


def plus_one(start: str, *leaves: str) -> dict[str, Change]:
    """The change of norms that transformers computes as 1 + weight, which llama.cpp stores with the one added.

    start: `blk.*.` or empty. Biases of the same norms are stored as they are.
    """
    return {f"{start}{leaf}.weight": lambda values, _: values - np.float32(1) for leaf in leaves}


def biases(facts: Facts, leaves: Iterable[str]) -> bool:
    """Whether some of these linear maps has a bias."""
    return facts.any(*(f"{leaf}.bias" for leaf in leaves))
