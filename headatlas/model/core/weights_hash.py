"""What tells the weights of a model in memory from others: a sha256, and a fast check of whether they changed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headatlas.errors import UnsupportedModel


def fingerprint(hf: nn.Module) -> str:
    """A sha256 over the names and bytes of all weights, adapters and buffers included."""
    digest = hashlib.sha256()
    for part in _parts(hf):
        digest.update(part)
    return digest.hexdigest()


def checksum(hf: nn.Module) -> int:
    """A CRC over the same, at a gigabyte a second. Version counters would be faster and miss what is written to `.data`."""
    found = 0
    for part in _parts(hf):
        found = zlib.crc32(part, found)
    return found


def _parts(hf: nn.Module) -> Iterator[Any]:
    state: Mapping[str, Any] = hf.state_dict()
    for name, value in sorted(state.items()):
        yield name.encode()
        if isinstance(value, Tensor) and value.is_meta:
            yield from _elsewhere(hf, name)
        else:
            yield from pieces(value)


def _elsewhere(hf: nn.Module, name: str) -> Iterator[Any]:
    """The bytes of a weight that accelerate keeps elsewhere until it is used (on disk, or held back on the CPU), and of no other."""
    from accelerate.utils import align_module_device

    path, _, own = name.rpartition(".")
    module = hf.get_submodule(path)
    with align_module_device(module):
        value = getattr(module, own)
        if value.is_meta:
            raise UnsupportedModel(
                f"The weight {name} is nowhere: it lies on the device meta.", "Load the model whole."
            )
        yield from pieces(value)


def pieces(value: Any) -> Iterator[Any]:
    """The bytes of an entry: of a tensor, of the tensors that a quantised one is made of, of packed weights and scales."""
    if isinstance(value, Mapping):
        value = sorted(value.items())
    if isinstance(value, list | tuple):
        for part in value:
            yield from pieces(part)
    elif (
        isinstance(value, Tensor) and type(value) not in (Tensor, nn.Parameter) and hasattr(value, "__tensor_flatten__")
    ):
        names, facts = value.__tensor_flatten__()
        yield repr(facts).encode()
        for name in names:
            yield from pieces(getattr(value, name))
    elif isinstance(value, Tensor) and value.is_quantized:
        yield from pieces([value.int_repr(), value.dequantize()])
    elif isinstance(value, Tensor):
        yield bytes_of(value)
    else:
        yield repr(value).encode()


def bytes_of(value: Tensor) -> Any:
    """What a tensor holds, as bytes; without a copy where it lies in one piece on the CPU."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
