"""Named words of a text: given as text or as characters, found again as positions of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.model.text.start_end import rule_of
from headatlas.model.text.tokenizer import Tokenizer

Span = tuple[int, int]  # characters from and to (not included) in a text
_RESERVED = ("end", "predict")
_FORMS = "Write the words as they stand in the prompt, or [from, to] in characters, or a list of these."


def spans_of(where: str, given: Any, text: str) -> dict[str, list[Span]]:
    """Named spans of a text: name -> words that stand in it once, [from, to], or a list of these. Raises BadInput."""
    if not isinstance(given, Mapping):
        raise BadInput(f"{where}: a dictionary of names is wanted, got {type(given).__name__}.", _FORMS)
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
                f"{where}: [{start}, {stop}] lies outside the prompt, which has {len(text)} characters.", _FORMS
            )
        return start, stop
    if not isinstance(value, str) or not value:
        raise BadInput(f"{where}: {value!r} is neither words nor a pair of characters.", _FORMS)
    start = text.find(value)
    if start < 0:
        raise BadInput(f"{where}: '{value}' does not stand in the prompt.", _FORMS)
    if text.find(value, start + 1) >= 0:
        again = text.find(value, start + 1)
        hint = f"Say which by characters, such as [{start}, {start + len(value)}]; both: [[{start}, {start + len(value)}], [{again}, {again + len(value)}]]."
        raise BadInput(f"{where}: '{value}' stands in the prompt more than once.", hint)
    return start, start + len(value)


def span_positions(
    texts: Sequence[tuple[str, str, Mapping[str, list[Span]]]], tokenizer: Tokenizer
) -> dict[str, Tensor]:
    """name -> [example, k] positions of the tokens that have a part in the spans of each (where, text, spans); -1 for none.

    Positions count as the stack that predicts tokens reads the text. Raises BadInput for spans that no token covers.
    """
    names = dict.fromkeys(name for _, _, spans in texts for name in spans)
    found: dict[str, list[list[int]]] = {name: [] for name in names}
    for where, text, spans in texts:
        tokens = tokenizer.spans(text) if spans else []
        front = _in_front(tokenizer.encode(text), tokenizer) if spans else 0
        for name in names:
            at = [
                place + front
                for place, (start, stop) in enumerate(tokens)
                if any(start < end and stop > begin for begin, end in spans.get(name, []))
            ]
            if name in spans and not at:
                raise BadInput(f"{where}, span '{name}': no token covers it.", _FORMS)
            found[name].append(at)
    width = {name: max(map(len, rows)) for name, rows in found.items()}
    return {
        name: torch.tensor([[*row, *[-1] * (width[name] - len(row))] for row in rows]) for name, rows in found.items()
    }


def _in_front(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """How many tokens stand before a text's own."""
    rule = rule_of(tokenizer)
    return len(rule.missing_front(ids)) + (rule.two_stacks and rule.decoder_start is not None)
