"""Reads files that others wrote: within bounds, by a schema, and with errors that name the file, the place and the cure.

Everything that headatlas reads from a disk and did not ship itself comes through here (the catalogue's YAML through
`headatlas.catalogue.files.strict_yaml`, the head of a GGUF file through `headatlas.model.sources.gguf_file`).
"""

from headatlas.reading.arrays import read_array, read_arrays
from headatlas.reading.files import Source, read_bytes, read_text, reason
from headatlas.reading.json_text import parse_json, read_json, read_json_lines
from headatlas.reading.schema import (
    Count,
    Head,
    Layer,
    Name,
    Number,
    Open,
    Record,
    Text,
    Written,
    checked,
    demand_schema,
)
from headatlas.reading.tables import read_table, read_whole_table
from headatlas.reading.tensors import read_tensor_header, read_tensors

__all__ = [
    "Count", "Head", "Layer", "Name", "Number", "Open", "Record", "Source", "Text", "Written", "checked", "demand_schema",
    "parse_json", "read_array", "read_arrays", "read_bytes", "read_json", "read_json_lines", "read_table",
    "read_tensor_header", "read_tensors", "read_text", "read_whole_table", "reason",
]  # fmt: skip
