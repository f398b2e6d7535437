"""NumPy files within bounds: sizes as their headers promise, numbers only, nothing pickled."""

from __future__ import annotations

import math
import zipfile
from tokenize import TokenError  # of the parser that NumPy reads headers with
from typing import IO, TYPE_CHECKING, Any

from headatlas.reading.files import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ARRAYS = 100_000  # in one .npz
_DIMENSIONS = 16


def read_arrays(source: Source) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name. Raises source.error."""
    with source.explained(TokenError), zipfile.ZipFile(source.path) as archive:
        parts = archive.infolist()
        if len(parts) > _ARRAYS or sum(part.file_size for part in parts) > source.largest:
            raise ValueError(f"it holds more than {_ARRAYS:,} arrays or {source.largest:,} bytes")
        found = {}
        for part in parts:
            name = part.filename.removesuffix(".npy")
            if name in found:
                raise ValueError(f"the array '{name}' is there twice")
            with archive.open(part) as stream:
                found[name] = _read(stream, part.file_size)
        return found


def read_array(source: Source) -> NDArray[Any]:
    """The array of an .npy file. Raises source.error."""
    with source.explained(TokenError), source.path.open("rb") as stream:
        size = source.path.stat().st_size
        if size > source.largest:
            raise ValueError(f"it has more than {source.largest:,} bytes")
        return _read(stream, size)


def _read(stream: IO[bytes], size: int) -> NDArray[Any]:
    """One array of `size` bytes with its header. Raises ValueError before memory is taken for what is not there."""
    import numpy as np

    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"its format version is {version}")
    shape, by_column, kind = read(stream)
    if kind.kind not in "biuf":
        raise ValueError(f"it holds values of type {kind}, expected numbers")
    if len(shape) > _DIMENSIONS or any(length < 0 for length in shape):
        raise ValueError(f"its shape is {shape}")
    promised, there = math.prod(shape) * kind.itemsize, size - stream.tell()
    if promised != there:
        raise ValueError(f"it holds {there:,} bytes of numbers where its header promises {promised:,}")
    data = stream.read(promised)
    if len(data) != promised:
        raise ValueError("it ends in the middle of its numbers")
    return np.frombuffer(bytearray(data), dtype=kind).reshape(shape, order="F" if by_column else "C")
