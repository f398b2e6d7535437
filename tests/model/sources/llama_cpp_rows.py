"""The order and offsets in which llama.cpp's converter writes tensors, for the families where they are not the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

State = dict[str, np.ndarray]


def _permuted(state: State, config: Any) -> State:
    """Llama: the two halves of each head's rows become neighbours."""
    for name, values in state.items():
        for part, n_heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if f".{part}." in name:
                halves = values.reshape(n_heads, 2, values.shape[0] // n_heads // 2, *values.shape[1:])
                state[name] = halves.swapaxes(1, 2).reshape(values.shape)
    return state


def _plus_one(state: State, _: Any) -> State:
    return {name: values + 1 if name.endswith("norm.weight") else values for name, values in state.items()}


def _transposed(state: State, _: Any) -> State:
    ends = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
    return {name: values.T if name.endswith(ends) else values for name, values in state.items()}


def _bloom(state: State, config: Any) -> State:
    found: State = {}
    for name, values in state.items():
        if "query_key_value" in name:
            heads = values.reshape(config.n_head, 3, -1, *values.shape[1:])
            values = np.concatenate([heads[:, i].reshape(-1, *values.shape[1:]) for i in range(3)])
        found[name.removeprefix("transformer.")] = values
    return found


def _falcon(state: State, config: Any) -> State:
    n_heads = config.num_attention_heads
    n_groups = config.num_kv_heads if config.new_decoder_architecture else 1
    width = config.hidden_size // n_heads
    for name, values in state.items():
        if "query_key_value" in name:
            qkv = values.reshape(n_groups, n_heads // n_groups + 2, width, -1)
            parts = [qkv[:, :-2], qkv[:, [-2]], qkv[:, [-1]]]
            state[name] = np.concatenate([part.reshape(-1, values.shape[-1]) for part in parts])
    return state


def _experts(state: State, _: Any) -> State:
    found: State = {}
    for name, values in state.items():
        if name.endswith("experts.gate_up_proj"):
            gate, up = np.split(values, 2, axis=1)
            found[name.replace("gate_up_proj", "gate_proj.weight")] = gate
            found[name.replace("gate_up_proj", "up_proj.weight")] = up
        elif name.endswith("experts.down_proj"):
            found[f"{name}.weight"] = values
        else:  # one row or column is written flat
            found[name] = values.reshape(-1) if "shared_expert_gate" in name else values
    return found


def _gpt_oss(state: State, _: Any) -> State:
    found: State = {}
    for name, values in state.items():
        stem = name.partition("gate_up_proj")[0]
        if name.endswith("gate_up_proj"):
            values = values.swapaxes(-1, -2)
            found[f"{stem}gate_proj.weight"], found[f"{stem}up_proj.weight"] = values[:, ::2], values[:, 1::2]
        elif name.endswith("gate_up_proj_bias"):
            found[f"{stem}gate_proj.bias"], found[f"{stem}up_proj.bias"] = values[:, ::2], values[:, 1::2]
        elif name.endswith("down_proj"):
            found[f"{name}.weight"] = values.swapaxes(-1, -2)
        elif name.endswith("down_proj_bias"):
            found[name.replace("_bias", ".bias")] = values
        else:
            found[f"{name}.weight" if name.endswith("sinks") else name] = values
    return found


def _stablelm(state: State, _: Any) -> State:
    """The norms of single heads are stacked into one tensor."""
    found: State = {}
    for name, values in state.items():
        stem, mark, _ = name.partition(".norms.")
        if mark:
            key = f"{stem}.weight"
            found[key] = np.concatenate([found[key], values[None]]) if key in found else values[None]
        else:
            found[name] = values
    return found


def _lfm2(state: State, _: Any) -> State:
    return {name: values[:, 0] if name.endswith("conv.conv.weight") else values for name, values in state.items()}


CHANGES: Mapping[str, Callable[[State, Any], State]] = {
    "llama": _permuted,
    "gemma2": _plus_one,
    "gemma3": _plus_one,
    "nemotron": _plus_one,
    "gpt2": _transposed,
    "bloom": _bloom,
    "falcon": _falcon,
    "falcon-grouped": _falcon,
    "qwen2-moe": _experts,
    "qwen3-moe": _experts,
    "gpt-oss": _gpt_oss,
    "stablelm": _stablelm,
    "lfm2": _lfm2,
}
