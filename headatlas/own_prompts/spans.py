"""Named words of a text: given as text or as characters, found in it as characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headatlas.errors import BadInput

Span = tuple[int, int]  # characters from and to (not included) in a text
_RESERVED = ("end", "predict")
FORMS = "Write the words as they stand in the prompt, or [from, to] in characters, or a list of these."


def spans_of(where: str, given: Any, text: str) -> dict[str, list[Span]]:
    """Named spans of a text: name -> words that stand in it once, [from, to], or a list of these. Raises BadInput."""
    if not isinstance(given, Mapping):
        raise BadInput(f"{where}: a dictionary of names is wanted, got {type(given).__name__}.", FORMS)
    found = {}
    for name, value in given.items():
        if name in _RESERVED:
            raise BadInput(f"{where}: '{name}' is a position that all prompts have.", "Choose another name.")
        if value is None:  # a table has every name in every row
            continue
        several = isinstance(value, Sequence) and not isinstance(value, str) and not _is_pair(value)
        listed = value if several else [value]
        found[str(name)] = [_one(f"{where}, span '{name}'", one, text) for one in listed]
    return found


def _is_pair(value: Any) -> bool:
    whole = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    return whole and all(isinstance(part, int) and not isinstance(part, bool) for part in value)


def _one(where: str, value: Any, text: str) -> Span:
    if _is_pair(value):
        start, stop = value
        if not 0 <= start < stop <= len(text):
            raise BadInput(
                f"{where}: [{start}, {stop}] lies outside the prompt, which has {len(text)} characters.", FORMS
            )
        return start, stop
    if not isinstance(value, str) or not value:
        raise BadInput(f"{where}: {value!r} is neither words nor a pair of characters.", FORMS)
    start = text.find(value)
    if start < 0:
        raise BadInput(f"{where}: '{value}' does not stand in the prompt.", FORMS)
    if text.find(value, start + 1) >= 0:
        again = text.find(value, start + 1)
        hint = f"Say which by characters, such as [{start}, {start + len(value)}]; both: [[{start}, {start + len(value)}], [{again}, {again + len(value)}]]."
        raise BadInput(f"{where}: '{value}' stands in the prompt more than once.", hint)
    return start, start + len(value)
