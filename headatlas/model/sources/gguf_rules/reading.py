"""Reads a GGUF file by the rules of its architecture: a transformers configuration and all parameters, in float32."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf import quants

from headatlas.errors import SourceError, UnsupportedModel
from headatlas.model.sources.gguf_rules import experts, gemma, layernorm, llama, rotary
from headatlas.model.sources.gguf_rules.architecture import Architecture, Facts, Fields, State
from headatlas.model.sources.gguf_rules.metadata import HINT, Metadata, unknown
from headatlas.registry import did_you_mean

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURES: Mapping[str, Architecture] = {
    one.name: one
    for one in (
        llama.LLAMA, llama.QWEN2, llama.QWEN3, llama.PHI3, gemma.GEMMA2, gemma.GEMMA3, layernorm.GPT2, layernorm.BLOOM,
        layernorm.FALCON, layernorm.STARCODER2, layernorm.STABLELM, layernorm.NEMOTRON, experts.QWEN2MOE,
        experts.QWEN3MOE, experts.GPT_OSS, experts.LFM2,
    )
}  # fmt: skip
# Why others are not read, where that is known.
_OTHERS: Mapping[str, str] = {
    "mamba": "it has no attention heads",
    "t5": "it has an encoder and a decoder",
    "t5encoder": "it is half of a model with an encoder and a decoder",
    "deci": "its layers differ in their heads, which no class of transformers has",
}
_SMALL = (rotary.FREQUENCIES, rotary.LONG, rotary.SHORT)
_LAYER = re.compile(r"^blk\.(\d+)\.")
_NUMBER = re.compile(r"\.\d+\.")
_TABLE = "token_embd.weight"


@dataclass(frozen=True)
class Reading:
    """A GGUF file read: the configuration, and all parameters by their name in transformers, as transformers has them."""

    config: PretrainedConfig
    state: State
    keys: Metadata


def read(path: Path) -> Reading:
    """Read all of `path`. Every key and tensor is used or known to be harmless.

    Raises UnsupportedModel where one is not, and SourceError where the file lacks something.
    """
    reader = gguf.GGUFReader(path)
    keys = Metadata.of(reader, path.name)
    rules = _architecture(keys)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if _TABLE not in tensors:
        raise SourceError(f"{path} lacks the tensor {_TABLE}.", "Fetch it again.")
    small = {name: _values(tensors[name], path.name) for name in _SMALL if name in tensors}
    if rules.rotary is None and small:
        raise unknown("tensor", next(iter(small)), path.name)
    layers = {int(found[1]) for found in map(_LAYER.match, tensors) if found}
    facts = Facts(keys, frozenset(tensors), small, int(tensors[_TABLE].shape[-1]), max(layers, default=-1) + 1)
    fields = rules.configuration(facts)
    keys.refuse_unread()
    config = _config(rules, fields, keys)
    places = {name: _place(name, rules, path.name) for name in tensors if name not in _SMALL}
    state: State = {}
    for name, place in places.items():
        _take(name, _values(tensors[name], path.name), place, rules, fields, state, path.name)
    if rules.merge is not None:
        rules.merge(state, fields)
    _complete(state, config, rules, {place: name for name, place in places.items()}, path)
    return Reading(config, state, keys)


def _complete(state: State, config: Any, rules: Architecture, origins: Mapping[str, str], path: Path) -> None:
    """Hold `state` against the parameters that the model has: none too many, none missing, none of another shape."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    shapes = {name: tuple(values.shape) for name, values in model.state_dict().items()}
    for name, values in state.items():
        if name not in shapes:
            raise unknown("tensor", origins.get(name, name), path.name)
        if values.shape != shapes[name]:
            why = f"its shape is {list(values.shape)}, not {list(shapes[name])}"
            raise unknown("tensor", origins.get(name, name), path.name, why)
    tied = set(model._tied_weights_keys or ()) if config.tie_word_embeddings else set()
    missing = sorted(shapes.keys() - state.keys() - tied)
    zeros = [name for name in missing if _NUMBER.sub(".*.", name) in rules.zeros]
    state.update({name: np.zeros(shapes[name], dtype=np.float32) for name in zeros})
    lacking = [name for name in missing if name not in zeros]
    if lacking:
        raise SourceError(
            f"{path} lacks {len(lacking)} of the model's weights, such as {lacking[0]}.", "Fetch it again."
        )


def _architecture(keys: Metadata) -> Architecture:
    name = keys.architecture
    if keys.values.get("general.type", "model") != "model":
        raise UnsupportedModel(
            f"{keys.file} holds a {keys.values['general.type']}, not a model.", "Give the file of the model."
        )
    if name not in ARCHITECTURES:
        why = f": {_OTHERS[name]}" if name in _OTHERS else ""
        near = did_you_mean(name, ARCHITECTURES)
        known = f"Read are: {', '.join(ARCHITECTURES)}."
        raise UnsupportedModel(
            f"headatlas does not read GGUF files of the architecture {name} ({keys.file}){why}.",
            f"{near or known} {HINT}",
        )
    return ARCHITECTURES[name]


def _values(tensor: gguf.ReaderTensor, file: str) -> np.ndarray:
    """The numbers of a tensor in float32, in the shape that torch has."""
    try:
        values = quants.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        kind = tensor.tensor_type.name
        raise UnsupportedModel(f"{tensor.name} of {file} is stored as {kind}, which is not read.", HINT) from error
    if tensor.tensor_type.name.startswith(("I8", "I16", "I32", "I64")):
        raise unknown("tensor", tensor.name, file, "it holds whole numbers")
    return np.asarray(values, dtype=np.float32)


def _place(name: str, rules: Architecture, file: str) -> str:
    """The parameter that a tensor is."""
    layer = _LAYER.match(name)
    stem, _, end = _LAYER.sub("blk.*.", name).rpartition(".")
    if stem not in rules.tensors or end not in ("weight", "bias"):
        raise unknown("tensor", name, file)
    return f"{rules.tensors[stem].replace('*', layer[1] if layer else '*')}.{end}"


def _take(
    name: str, values: np.ndarray, place: str, rules: Architecture, fields: Fields, state: State, file: str
) -> None:
    """Put one tensor into `state` at `place`, in the order that transformers has."""
    leaf = _LAYER.sub("blk.*.", name)
    stem, _, end = leaf.rpartition(".")
    change = rules.changes.get(leaf) or rules.changes.get(stem)
    try:
        changed = values if change is None else change(values, fields)
    except ValueError as error:
        raise unknown("tensor", name, file, f"its shape is {list(values.shape)}") from error
    if isinstance(changed, dict):
        for part, numbers in changed.items():
            state[f"{place.removesuffix(end)}{part}.{end}"] = numbers
    else:
        state[place] = changed


def _config(rules: Architecture, fields: Fields, keys: Metadata) -> Any:
    import transformers

    ids = {
        ours: keys.values.get(f"tokenizer.ggml.{theirs}_token_id")
        for ours, theirs in {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}.items()
    }
    # An id beyond the table of embeddings names no token; transformers would make a table with a padding row of it.
    ids = {name: one if one is not None and one < fields["vocab_size"] else None for name, one in ids.items()}
    kind = getattr(transformers, rules.config)
    try:
        return kind(**{**fields, **ids}, dtype="float32")
    except Exception as error:  # the configurations check themselves in ways of their own
        reason = str(error).strip().splitlines()
        raise UnsupportedModel(
            f"{keys.file} does not make a {rules.config} of transformers: {' '.join(reason[:2])}", HINT
        ) from error
