"""What opening a model found out about it, as plain data to be kept, and put on a model of the same key again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headatlas.model.core.attention_layer import AttentionLayer, ColumnSource, Input, QKVColumns
from headatlas.model.core.model import Model
from headatlas.model.core.unembedding import Unembedding

_FLAGS = ("kind", "fast", "right_padding", "left_padding", "left_choices", "restarts", "loaded_checksum")
_PARTS = {kind.__name__: kind for kind in (AttentionLayer, ColumnSource, Input, QKVColumns)}
Arrays = dict[str, NDArray[Any]]


def hangs_on_weights(model: Model) -> bool:
    """Whether what was found holds numbers that other weights would give otherwise, beside the gains of norms.

    They may be kept for weights that are known by the hash of their files, and not for a model in memory.
    """
    sources = [source for layer in model.layers if layer.qkv for source in (layer.qkv.q, layer.qkv.k, layer.qkv.v)]
    return any(layer.multiplier != 1.0 or layer.learned_gain is not None for layer in model.layers) or any(
        bool((source.factor != 1).any()) for source in sources
    )


def described(model: Model) -> tuple[dict[str, Any], Arrays]:
    """(facts ready for JSON, arrays by name): modules as their paths, equal arrays once."""
    paths = {module: path for path, module in model.hf.named_modules()}
    arrays: Arrays = {}
    names: dict[bytes, str] = {}

    def put(value: Any) -> Any:
        if isinstance(value, nn.Module):
            return {"@module": paths[value]}
        if isinstance(value, Tensor):
            array = value.detach().cpu().numpy()
            name = names.setdefault(repr((array.shape, array.dtype)).encode() + array.tobytes(), f"a{len(names)}")
            arrays[name] = array
            return {"@array": name}
        if isinstance(value, dict):
            return {"@pairs": [[put(key), put(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return [put(item) for item in value]
        if is_dataclass(value):
            return {"@part": type(value).__name__, **{one.name: put(getattr(value, one.name)) for one in fields(value)}}
        return value

    facts = {name: getattr(model, name) for name in _FLAGS}
    facts |= {"layers": put(model.layers), "block_returns": put(model.block_returns)}
    facts["unembedding"] = model.unembedding and put((model.unembedding.head, model.unembedding.norm))
    return facts, arrays


def restore(model: Model, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Give a model just opened what `described` told of one with the same key."""

    def get(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(get, value))
        if not isinstance(value, dict):
            return value
        if "@module" in value:
            return model.hf.get_submodule(value["@module"])
        if "@array" in value:
            return torch.from_numpy(arrays[value["@array"]]).to(model.device)
        if "@pairs" in value:
            return {get(key): get(item) for key, item in value["@pairs"]}
        return _PARTS[value["@part"]](**{name: get(item) for name, item in value.items() if name != "@part"})

    for name in _FLAGS:
        setattr(model, name, facts[name])
    model.block_returns = get(facts["block_returns"])
    model.layers = get(facts["layers"])
    read_out: tuple[nn.Module, nn.Module] | None = get(facts["unembedding"])
    model.unembedding = None if read_out is None else Unembedding(*read_out, model.d_model)
