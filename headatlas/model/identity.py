"""What of an opened model decides its numbers beside its weights, as hashes: a run that differs in one is another run.

The weights have `Model.sha256`, which tells changes in memory too. The rest is read off the model in memory at the time of
asking, not off its files, because that is what computes:

- buffers that no file holds, rotary frequencies above all;
- what modules are and hold beside tensors: their classes, numbers (a scale, an epsilon, a window), hooks of their owner;
- the configuration, which the models' own code asks during a pass; without what has to do with generation or labels only;
- the tokenizer in its serialized form, with the length and ids that it was opened with;
- which adapters are active.

Each hash is the same in every process and unmoved by passes: what a module keeps for itself between passes (grown rotary
tables, an offset of a cache) is left out or put back to where it began.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.model.core.model import Model
from headatlas.model.core.weights_hash import pieces
from headatlas.model.text.tokenizer import Tokenizer

_DIGITS = 16
_OF_TORCH = frozenset(vars(nn.Module()))
# Keys of a configuration that no forward pass without a cache asks for.
_NO_NUMBERS = frozenset(
    (
        "transformers_version",
        "architectures",
        "dtype",
        "torch_dtype",
        "auto_map",
        "id2label",
        "label2id",
        "problem_type",
    )
) | {"return_dict", "output_attentions", "output_hidden_states", "use_cache", "name_or_path"}
# Attributes that modules change while they run, or that are a place.
_PASSING = frozenset(
    ("name_or_path", "warnings_issued", "gradient_checkpointing", "rope_deltas", "recurrent_states", "conv1d_state")
)
_GROWN = ("long_inv_freq", "max_seq_len_cached", "attention_scaling")  # by rotary embeddings that depend on the length
# What accelerate puts on modules whose weights it moves, which changes no number.
_PLACED = frozenset(("forward", "hf_device_map", "to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa"))
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def identity_of(model: Model) -> dict[str, Any]:
    """Sixteen hexadecimal digits each of buffers, modules, configuration and tokenizer; active adapters by name, if any."""
    return {
        "buffers": _hash(_buffers(model.hf)),
        "modules": _hash(_modules(model.hf)),
        "configuration": _hash([_text(_configuration(model.hf.config.to_dict()))]),  # type: ignore[union-attr, operator]
        "tokenizer": _hash(_tokenizer(model.tokenizer)),
        **_adapters(model.hf),
    }


def _hash(parts: Iterator[Any] | list[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:_DIGITS]


def _buffers(hf: nn.Module) -> Iterator[Any]:
    """The buffers that are in no file; those that are belong to the weights."""
    for path, module in hf.named_modules():
        for name, value in sorted(module._buffers.items()):  # a tensor under two names counts twice
            if value is not None and name in module._non_persistent_buffers_set:
                yield f"{path}.{name} {value.dtype} {tuple(value.shape)}"
                yield from pieces(_at_the_start(module, name, value))


def _at_the_start(module: nn.Module, name: str, value: Tensor) -> Tensor:
    """A buffer as it was before passes: rotary frequencies that depend on the length keep those they began with."""
    prefix = name.removesuffix("inv_freq")
    if prefix == name or name.endswith("original_inv_freq") or not _by_length(module):
        return value
    start = getattr(module, f"{prefix}original_inv_freq", None)
    cached = getattr(module, f"{prefix}max_seq_len_cached", getattr(module, "max_seq_len_cached", 0))
    grown = cached > getattr(module, "original_max_seq_len", cached)
    overwritten = "longrope" in str(getattr(module, "rope_type", ""))  # in every pass, whatever stands there
    return start if isinstance(start, Tensor) and (grown or overwritten) else value


def _by_length(module: nn.Module) -> bool:
    """Whether a rotary embedding takes other frequencies for longer inputs."""
    kinds = str(getattr(module, "rope_type", ""))
    return "dynamic" in kinds or "longrope" in kinds


def _modules(hf: nn.Module) -> Iterator[Any]:
    """Every module's path, class, attributes that are data, and the names of functions that were put into it."""
    for path, module in hf.named_modules():
        leave, passing = _GROWN if _by_length(module) else (), _PASSING
        if hasattr(module, "_hf_hook"):
            passing = _PASSING | _PLACED
        held = {
            name: _plain(value)
            for name, value in vars(module).items()
            if name not in _OF_TORCH and not name.startswith("_") and name not in passing and not name.endswith(leave)
        }
        hooks = [_name_of(hook) for kind in _HOOKS for hook in getattr(module, kind).values()]
        yield f"{path} {_name_of(type(module))} {_text(held)} {hooks}"


def _plain(value: Any) -> Any:
    """A value as JSON has it; tensors by what they hold, all else by the name of what it is, which is the same everywhere."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape), _hash(pieces(value))]
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return str(value) if isinstance(value, torch.dtype) else _name_of(value)


def _name_of(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    from transformers import GenerationConfig

    generation = {name for name in GenerationConfig().to_dict() if not name.endswith("_token_id")}
    return {
        str(name): _configuration(value) if isinstance(value, Mapping) else _plain(value)
        for name, value in config.items()
        if not str(name).startswith("_") and name not in _NO_NUMBERS and name not in generation
    }


def _tokenizer(tokenizer: Tokenizer) -> Iterator[Any]:
    yield _text([tokenizer.bos, tokenizer.eos, tokenizer.causal, tokenizer.context, tokenizer.vocab_size])
    yield from tokenizer.serialized()


def _adapters(hf: nn.Module) -> dict[str, list[str]]:
    """Names of the adapters that act, "(off)" behind those that are switched off; nothing where there are none."""
    found = set()
    for module in hf.modules():
        names = getattr(module, "_active_adapter", None)
        if isinstance(names, str | list):
            off = " (off)" if getattr(module, "_disable_adapters", False) else ""
            found |= {f"{name}{off}" for name in ([names] if isinstance(names, str) else names)}
    return {"adapters": sorted(found)} if found else {}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
