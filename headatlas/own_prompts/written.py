"""Rows of prompts as they are written: their texts, answers and named spans, checked row by row without a tokenizer."""

from __future__ import annotations

import difflib
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headatlas.errors import BadInput
from headatlas.own_prompts.rows import Row, rows_of, shown
from headatlas.own_prompts.spans import Span, spans_of
from headatlas.reading.chats import demand_messages, is_chat
from headatlas.registry import did_you_mean

SLIP = 0.8  # how alike two names are, by difflib, of which one is a slip of the other
_OLD = {"prompt": "clean", "counterfactual": "corrupted"}  # what files of before call them
Chat = Callable[[str, Sequence[Mapping[str, Any]]], str]  # writes the messages of a chat that stands somewhere


@dataclass(frozen=True)
class Columns:
    """What the columns are called."""

    prompt: str = "prompt"
    answer: str = "answer"
    wrong: str = "wrong"
    counterfactual: str = "counterfactual"
    spans: str = "spans"


@dataclass(frozen=True)
class Written:
    """One row. other: its counterfactual. spans, other_spans: named words, in characters."""

    row: Row
    text: str
    other: str | None
    answers: list[str]
    wrongs: list[str]
    spans: dict[str, list[Span]] = field(default_factory=dict)
    other_spans: dict[str, list[Span]] = field(default_factory=dict)


def rows_written(
    source: Any, columns: Columns, template: str | None = None, write: Chat | None = None
) -> list[Written]:
    """The rows of `source`, all with answers, wrong answers and counterfactuals or none of them. Raises BadInput naming row and column.

    write: how the model's tokenizer writes a chat; None where no model is there yet, and then the spans of chats are not looked up.
    """
    rows = rows_of(source, columns.prompt)
    _demand_known(rows, columns, template or "")
    found = [_written(row, columns, template, write) for row in rows]
    for name, there in (
        (columns.answer, [bool(one.answers) for one in found]),
        (columns.wrong, [bool(one.wrongs) for one in found]),
        (columns.counterfactual, [one.other is not None for one in found]),
    ):
        if any(there) and not all(there):
            lacking = found[there.index(False)].row
            raise BadInput(f"{lacking.where} has no '{name}', and others have one.", "Give it in all rows, or in none.")
    return found


def _demand_known(rows: Sequence[Row], columns: Columns, template: str) -> None:
    """Refuse a column that was named and is in no row, and one whose name is a slip of one that is not there.

    Either would be left out without a word: without the answers, effects are measured against the clean run.
    """
    there = dict.fromkeys(str(name) for row in rows for name in row.values)
    mine = vars(columns)
    for key, name in mine.items():
        if not rows or name in there or key == "prompt":
            continue
        if name != key:
            listed = ", ".join(there) or "none"
            hint = did_you_mean(name, there) or "Name one that is there, or leave it out."
            raise BadInput(f"No row has a column '{name}', which {key} was said to be; there are {listed}.", hint)
        slip = next((one for one in there if one not in mine.values() and _alike(one, name)), None)
        if slip is not None and f"{{{slip}}}" not in template:
            raise BadInput(
                f"There is a column '{slip}' that nothing reads, and no '{name}'.",
                f"Call it '{name}', or something else where it is not meant.",
            )


def _alike(written: str, meant: str) -> bool:
    """Whether one name may be a slip of the other: case, spaces, a letter or two."""
    return difflib.SequenceMatcher(None, written.strip().casefold(), meant).ratio() >= SLIP


def _written(row: Row, columns: Columns, template: str | None, write: Chat | None) -> Written:
    other = _column(row, columns.counterfactual, "counterfactual")
    made: dict[str, list[Span]] = {}
    made_other: dict[str, list[Span]] = {}
    spelled = True  # whether the text is the one that the model will read
    if template is not None:
        text, made = _filled(row, template, {})
        if isinstance(other, Mapping):
            other, made_other = _filled(row, template, other)
    else:
        given = _column(row, columns.prompt, "prompt")
        if given is None:
            there = ", ".join(map(str, row.values)) or "none"
            raise BadInput(
                f"{row.where} has no '{columns.prompt}'; its columns are {there}.",
                "Say which column it is: prompts(model, source, prompt='...').",
            )
        text = _text(row, columns.prompt, given, write)
        spelled = write is not None or not is_chat(given)
    other = None if other is None else _text(row, columns.counterfactual, other, write)
    named = row.values.get(columns.spans) or {}
    if spelled or not isinstance(named, Mapping):
        made |= spans_of(f"{row.where}, column '{columns.spans}'", named, text)
    else:
        made |= {name: [] for name in map(str, named)}
    answers, wrongs = _words(row, columns.answer), _words(row, columns.wrong)
    both = next((word for word in wrongs if word in answers), None)
    if both is not None:
        raise BadInput(
            f"{row.where}: '{both}' stands both in '{columns.answer}' and in '{columns.wrong}'.", "Take it out of one."
        )
    return Written(row, text, other, answers, wrongs, made, made_other)


def _column(row: Row, name: str, key: str) -> Any:
    """A row's value; of the names of before where the column is called as by default and is not there."""
    found = row.values.get(name)
    return row.values.get(_OLD[key]) if found is None and name == key and key in _OLD else found


def _filled(row: Row, template: str, changed: Mapping[str, Any]) -> tuple[str, dict[str, list[Span]]]:
    """The template with a row's columns in its fields, and where each of them stands."""
    text, found = "", dict[str, list[Span]]()
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadInput(
            f"The template cannot be read: {error}.", "Write {name} for a column, {{ for a brace."
        ) from error
    for literal, name, form, conversion in pieces:
        text += literal
        if name is None:
            continue
        if not name or form or conversion:
            raise BadInput(f"The template has the field '{{{name}}}' with no plain name.", "Write {name} for a column.")
        value = changed.get(name, row.values.get(name))
        if value is None or isinstance(value, Mapping | list):
            raise BadInput(f"{row.where} has no text in column '{name}', which the template names.", "Give it one.")
        found.setdefault(name, []).append((len(text), len(text) + len(str(value))))
        text += str(value)
    return text, found


def _text(row: Row, column: str, given: Any, write: Chat | None) -> str:
    where = f"{row.where}, column '{column}'"
    if is_chat(given):
        demand_messages(where, given)
        return write(where, given) if write is not None else "\n".join(one["content"] for one in given)
    if not isinstance(given, str) or not given:
        raise BadInput(
            f"{where}: a text or a chat is wanted, got {shown(given)}.",
            "Give a string, or messages with role and content.",
        )
    return given


def _words(row: Row, column: str) -> list[str]:
    """The answers of a row as they are written."""
    given = row.values.get(column)
    if given is None:
        return []
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    bad = next((one for one in listed if not isinstance(one, str) or not one), None)
    if bad is not None or not listed:
        raise BadInput(
            f"{row.where}, column '{column}': a text or a list of texts is wanted, got {shown(bad if listed else given)}.",
            "Write numbers as text, with the space before them if the model writes one.",
        )
    return listed
