"""JSON and JSON Lines within bounds: no key twice, nothing nested deep, no numbers that JSON does not know."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from headatlas.reading.files import Source, read_text

DEPTH = 32
_COLLECTIONS = 2_000_000  # lists and objects, which take some hundred bytes each in memory
_VALUES = 20_000_000
_LINE = 4_000_000  # characters of one line of JSON Lines
_LINES = 1_000_000
_PERHAPS_HUGE = re.compile(r"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")


def parse_json(text: str, *, constants: bool = False) -> Any:
    """The value that `text` writes. Raises ValueError that says what is wrong.

    constants: whether NaN and Infinity are read, as configurations of transformers have them; JSON has no such numbers.
    """
    # Counted before anything is built: a few megabytes of "[]," would fill the memory.
    if text.count("[") + text.count("{") > _COLLECTIONS or text.count(",") > _VALUES:
        raise ValueError(f"it holds more than {_COLLECTIONS:,} lists or {_VALUES:,} values")
    options: dict[str, Any] = {} if constants else {"parse_constant": _no_constant}
    if _PERHAPS_HUGE.search(text):  # asked for every number, `_finite` would cost more than all the rest
        options["parse_float"] = _finite
    try:
        value = json.loads(text, object_pairs_hook=_object, **options)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"it is nested more than {DEPTH} deep") from None
    _demand_depth(value)
    return value


def read_json(source: Source, *, constants: bool = False) -> dict[str, Any]:
    """The JSON object that a file holds; constants as in `parse_json`. Raises source.error naming file and fault."""
    text = read_text(source)
    with source.explained():
        value = parse_json(text, constants=constants)
    if not isinstance(value, dict):
        raise source.bad("is damaged (not a JSON object)")
    return value


def read_json_lines(source: Source, bad: Callable[[int, str], Exception]) -> list[tuple[int, Any]]:
    """(number, value) of every line that is not empty; lines end at line feeds and count from 1.

    bad: makes the error for a line from its number and what is wrong with it. Raises that, or source.error.
    """
    lines = read_text(source).split("\n")
    if len(lines) > _LINES:
        raise source.bad(f"has more than {_LINES:,} lines")
    found = []
    for number, line in enumerate(lines, start=1):
        if len(line) > _LINE:
            raise bad(number, f"has more than {_LINE:,} characters")
        if line.strip():
            try:
                found.append((number, parse_json(line)))
            except ValueError as error:
                raise bad(
                    number, f"is {error}" if str(error).startswith("not JSON") else f"is not read: {error}"
                ) from error
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key '{twice[:60]}' stands there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number; what is not defined is written as null")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _demand_depth(value: Any) -> None:
    """Level by level, since recursion is what a deep value breaks. Raises ValueError."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(DEPTH):
        if not level:
            return
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
    if level:
        raise ValueError(f"it is nested more than {DEPTH} deep")
