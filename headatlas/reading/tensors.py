"""Safetensors files: their header held against the file before anything is loaded."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from headatlas.reading.files import MB, Source
from headatlas.reading.json_text import parse_json

if TYPE_CHECKING:
    from torch import Tensor

_HEADER = 64 * MB
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def read_tensor_header(source: Source) -> dict[str, tuple[int, ...]]:
    """The shapes of a safetensors file by tensor, each checked to be inside the file, and the file to be whole.

    Raises source.error. The numbers themselves are not read.
    """
    with source.explained(), source.path.open("rb") as stream:
        size = source.path.stat().st_size
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length + 8 > size:
            raise ValueError(f"its {size:,} bytes end inside the header")
        if length > _HEADER:
            raise ValueError(f"its header has {length:,} bytes")
        try:
            header = parse_json(stream.read(length).decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"its header is not a list of tensors: {error}") from error
        if not isinstance(header, dict):
            raise ValueError("its header is not a list of tensors")
        spans = {name: _span(name, entry) for name, entry in header.items() if name != "__metadata__"}
        place = 0
        for name, (begin, end, _) in sorted(spans.items(), key=lambda item: item[1][:2]):
            if begin != place:
                raise ValueError(f"tensor {name[:80]} does not begin where the one before it ends")
            place = end
        if size != 8 + length + place:
            raise ValueError(f"it holds {size:,} bytes where its header promises {8 + length + place:,}")
    return {name: shape for name, (_, _, shape) in spans.items()}


def _span(name: str, entry: Any) -> tuple[int, int, tuple[int, ...]]:
    """(begin, end, shape) of a tensor. Raises ValueError where they do not fit each other."""
    known = isinstance(entry, dict) and entry.get("dtype") in _BITS
    if not known or not _counts(entry.get("shape")) or not _counts(entry.get("data_offsets")):
        raise ValueError(f"its header has no dtype, shape and data_offsets for tensor {name[:80]}")
    shape, offsets = tuple(entry["shape"]), entry["data_offsets"]
    if len(offsets) != 2 or len(shape) > 16:
        raise ValueError(f"its header has no dtype, shape and data_offsets for tensor {name[:80]}")
    if (offsets[1] - offsets[0]) * 8 != math.prod(shape) * _BITS[entry["dtype"]]:
        raise ValueError(f"tensor {name[:80]} has another size than its shape {list(shape)} asks for")
    return offsets[0], offsets[1], shape


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 1 << 48 for one in value)


def read_tensors(source: Source) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises source.error."""
    import safetensors
    from safetensors.torch import load_file

    read_tensor_header(source)
    with source.explained(safetensors.SafetensorError):
        return load_file(source.path)
