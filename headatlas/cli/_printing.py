"""Printing JSON: NaN as null, and nothing in it that acts on a terminal."""

from __future__ import annotations

import json
from typing import Any


def print_json(value: Any, indent: int | None = None) -> None:
    """Print a value as one JSON text on standard output."""
    from headatlas.render.escape import shown_json
    from headatlas.store import clean

    print(shown_json(json.dumps(clean(value), ensure_ascii=False, allow_nan=False, indent=indent)))
