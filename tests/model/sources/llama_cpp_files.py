"""Writes models of transformers as GGUF files the way llama.cpp's converter does, for tests that read them back.

Nothing here is shared with the code under test: tensors get their names from the gguf package's own table, and keys, row
orders and offsets follow what llama.cpp's conversion scripts do with a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import quants
from torch import nn

from tests.model.sources.llama_cpp_keys import SIZES, sizes
from tests.model.sources.llama_cpp_rows import CHANGES

Kind = gguf.GGMLQuantizationType

# Families of headatlas.model.families.tiny_models -> the name of the architecture in llama.cpp.
ARCHITECTURES: Mapping[str, gguf.MODEL_ARCH] = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen2-moe": gguf.MODEL_ARCH.QWEN2MOE,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "qwen3-moe": gguf.MODEL_ARCH.QWEN3MOE,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "bloom": gguf.MODEL_ARCH.BLOOM,
    "falcon": gguf.MODEL_ARCH.FALCON,
    "falcon-grouped": gguf.MODEL_ARCH.FALCON,
    "starcoder2": gguf.MODEL_ARCH.STARCODER2,
    "stablelm": gguf.MODEL_ARCH.STABLELM,
    "nemotron": gguf.MODEL_ARCH.NEMOTRON,
    "gpt-oss": gguf.MODEL_ARCH.GPT_OSS,
    "lfm2": gguf.MODEL_ARCH.LFM2,
}


def write(
    path: Path,
    family: str,
    model: nn.Module,
    *,
    kind: Kind = Kind.F32,
    tensors: Mapping[str, np.ndarray] | None = None,
    also: Callable[[gguf.GGUFWriter], None] = lambda _: None,
    skip: str = "",
) -> Path:
    """Write `model` to `path`. kind: of matrices. tensors: further ones. also: writes further keys. skip: one tensor."""
    architecture = ARCHITECTURES[family]
    config: Any = model.config
    n_layers = getattr(config, "num_hidden_layers", None) or config.n_layer
    names = gguf.get_tensor_name_map(architecture, n_layers)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_block_count(n_layers)
    SIZES.get(family, sizes)(writer, config)
    also(writer)
    state = {name: values.detach().numpy() for name, values in model.state_dict().items()}
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    state = CHANGES.get(family, lambda state, _: state)(state, config)
    for name, values in state.items():
        stem, _, end = name.rpartition(".")
        found = names.get_name(stem)
        assert found is not None, name
        if f"{found}.{end}" != skip:
            _add(writer, f"{found}.{end}", values, kind)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: Kind) -> None:
    values = np.ascontiguousarray(values)
    if values.ndim < 2 or kind == Kind.F32:
        writer.add_tensor(name, values)
    else:
        writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)


def on_the_grid(model: nn.Module, kind: Kind) -> nn.Module:
    """Round the matrices to what `kind` can hold, so that the file loses nothing. Blocks lie within rows."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                held = quants.dequantize(quants.quantize(parameter.numpy(), kind), kind)
                parameter.copy_(torch.from_numpy(np.array(held)))
    return model
