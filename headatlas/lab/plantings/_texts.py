"""The words of the tasks, for the vocabularies of planted models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headatlas.tasks._prompts import table


def texts_of(*tables: str) -> list[str]:
    """Every text in these files of tasks/data."""
    return [text for name in tables for text in _strings(table(name))]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (*_strings(key), *_strings(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    else:
        yield str(value)
