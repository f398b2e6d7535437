"""Reads the head of a GGUF file (the one-file format of llama.cpp) to see that the file is whole before it is used."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import gguf

from headatlas.errors import SourceError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_DIMENSIONS = 8
_MANY = 1 << 26  # more entries than this in one list means that the count itself is damaged


class _Damaged(Exception):
    """What is wrong with the bytes, in a few words."""


@dataclass(frozen=True)
class GgufHead:
    """What the head of a GGUF file says: the architecture, how many numbers it holds, whether it has a tokenizer."""

    architecture: str
    n_parameters: int
    has_tokenizer: bool


def read_head(path: Path) -> GgufHead:
    """Read the head of `path` and check that every tensor lies inside the file. Raises SourceError."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            return _read(_Reader(file, size))
    except _Damaged as error:
        raise SourceError(
            f"{path} is not a whole GGUF file: {error}.", "Give a whole file, or fetch it again."
        ) from error


def _read(reader: _Reader) -> GgufHead:
    if reader.take(4) != b"GGUF":
        raise _Damaged("it does not start with the letters GGUF")
    version = reader.number("I")
    if version not in (2, 3):
        raise _Damaged(f"its format version is {version}, expected 2 or 3")
    n_tensors, n_facts = reader.count(), reader.count()
    facts: dict[str, object] = {}
    for _ in range(n_facts):
        name = reader.text()
        facts[name] = reader.value(reader.number("I"))
    ends, n_parameters = [0], 0
    for _ in range(n_tensors):
        name = reader.text()
        n_dimensions = reader.number("I")
        if n_dimensions > _DIMENSIONS:
            raise _Damaged(f"tensor {name} has {n_dimensions} dimensions")
        shape = [reader.number("Q") for _ in range(n_dimensions)]
        kind, offset = reader.number("I"), reader.number("Q")
        if kind not in gguf.GGML_QUANT_SIZES:
            raise _Damaged(f"tensor {name} has the unknown type {kind}")
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        n_parameters += math.prod(shape)
        ends.append(offset + math.prod(shape) // per_block * block_bytes)
    alignment = facts.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Damaged(f"its alignment is {alignment}")
    start = -(-reader.place // alignment) * alignment
    if start + max(ends) > reader.size:
        raise _Damaged(f"it holds {reader.size:,} bytes where {start + max(ends):,} are expected")
    parts = facts.get("split.count", 1)
    if parts not in (0, 1):
        raise _Damaged(f"it is one of {parts} parts; put them together with llama-gguf-split --merge")
    if n_tensors == 0 or "general.architecture" not in facts:
        raise _Damaged("it holds no model (no tensors or no architecture)")
    return GgufHead(str(facts["general.architecture"]), n_parameters, "tokenizer.ggml.tokens" in facts)


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.place = file, size, 0

    def take(self, length: int) -> bytes:
        if length > self.size - self.place:
            raise _Damaged(f"it ends after {self.size:,} bytes, in the middle of its head")
        self.place += length
        return self.file.read(length)

    def number(self, form: str) -> int:
        value: int = struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]
        return value

    def count(self) -> int:
        value = self.number("Q")
        if value > min(_MANY, self.size):
            raise _Damaged(f"it claims a list of {value:,} entries")
        return value

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", errors="replace")

    def value(self, kind: int) -> object:
        """One value; of a list only its length, since nobody reads the entries."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            raise _Damaged(f"it holds a value of the unknown kind {kind}")
        inner, length = self.number("I"), self.count()
        if inner == _ARRAY:
            raise _Damaged("it holds a list of lists")
        if inner in _SCALARS:
            self.take(length * struct.calcsize(f"<{_SCALARS[inner]}"))
        else:
            for _ in range(length):
                self.value(inner)
        return length
