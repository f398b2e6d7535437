"""What tells the weights of a model in memory from others: a sha256, and a fast check of whether they changed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


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
    for name, value in sorted(hf.state_dict().items()):
        yield name.encode()
        yield bytes_of(value)


def bytes_of(value: Tensor) -> Any:
    """What a tensor holds, as bytes; without a copy where it lies in one piece on the CPU."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
