"""Parquet tables within bounds: the columns that are expected, and no more rows than such a table has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headatlas.reading.files import Source

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 50_000_000
_BYTES = 4 << 30  # of all columns, before they are compressed


def read_table(source: Source, columns: Mapping[str, str]) -> dict[str, list[Any]]:
    """Columns of a Parquet file by name. Raises source.error.

    columns: name -> "text", "integer" or "number" (null is None).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with source.explained(pa.ArrowException), pq.ParquetFile(source.path) as file:
        about = file.metadata
        unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        if not 0 <= about.num_rows <= _ROWS or not 0 <= unpacked <= _BYTES:
            raise ValueError(f"it claims {about.num_rows:,} rows of {unpacked:,} bytes")
        for name, kind in columns.items():
            place = file.schema_arrow.get_field_index(name)
            if place < 0:
                raise ValueError(f"it has no column '{name}', or has it twice")
            if not _is(file.schema_arrow.field(place).type, kind):
                raise ValueError(f"its column '{name}' is {file.schema_arrow.field(place).type}, expected {kind}")
        found: dict[str, list[Any]] = file.read(list(columns)).to_pydict()
        return found


def _is(kind: pa.DataType, expected: str) -> bool:
    import pyarrow as pa

    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    number = pa.types.is_integer(kind) or (expected == "number" and pa.types.is_floating(kind))
    return text if expected == "text" else number


def read_whole_table(source: Source, most: int) -> list[dict[str, Any]]:
    """All rows of a Parquet file that a user names, as dictionaries. Raises source.error, and so for more than `most` rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with source.explained(pa.ArrowException), pq.ParquetFile(source.path) as file:
        about = file.metadata
        unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        if not 0 <= about.num_rows <= most or not 0 <= unpacked <= _BYTES:
            raise ValueError(f"it claims {about.num_rows:,} rows of {unpacked:,} bytes, and at most {most:,} are read")
        found: list[dict[str, Any]] = file.read().to_pylist()
        return found
