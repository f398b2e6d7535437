"""The structure of a text, token by token: words, lines, open brackets and quotes, lists, tables, indented blocks, token classes.

All of it is read off the characters, the same for every model; no parser and no language model is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
CLASSES = ("line break", "punctuation", "number", "piece of a word", "capitalised", "function word", "word")
_PLACES = frozenset({"bracket", "quote", "first"})  # columns whose values are tokens of the text
_PAIRS = {")": "(", "]": "[", "}": "{"}
_QUOTES = {"“": "”", "«": "»", "„": "“"}
_MARKS = re.compile(r'[()\[\]{}"“”«»„]|\n\s*\n')
_ITEM = re.compile(r"[ \t]*(?:[-*•+]|\(?\d{1,3}[.)]|\(?[a-z][.)])[ \t]+(?=\S)")
_BREAK = re.compile(r"\n")


@dataclass(frozen=True)
class Structure:
    """Columns [token] by name.

    word: number of the word. line: number of the line. first: the line's first token. bracket, quote: the token that opened the
    innermost one around the token (of a closing one: the one it closes). item: number of the list that the token's line
    belongs to; marker: the same for the tokens of a list item's mark, else -1. table: number of the table; cell: which of its
    line's cells. header: number of the line that opens the indented block around the token's line. kind: which of CLASSES.
    -1 where there is none.
    """

    columns: Mapping[str, Ints]

    def column(self, name: str, start: int, stop: int, shift: int) -> Ints:
        """A column for tokens start..stop; places in the text as positions in a window that begins `shift` tokens before `start`."""
        found = self.columns[name][start:stop]
        if name not in _PLACES:
            return found
        return np.where(found >= start, found - start + shift, -1)


def structure_of(text: str, spans: Ints, word_starts: Sequence[bool]) -> Structure:
    """The structure of a text whose tokens stand for the characters spans [token, 2]; word_starts: see `Tokenizer.word_starts`."""
    pieces = [text[start:stop] for start, stop in spans]
    blank = np.array([len(piece) - len(piece.lstrip(" \t")) for piece in pieces], dtype=np.int64)
    whole = np.array([len(piece) for piece in pieces], dtype=np.int64)
    at = spans[:, 0] + np.where(blank < whole, blank, 0)  # the character that a token is known by
    breaks = np.array([found.start() for found in _BREAK.finditer(text)], dtype=np.int64)
    line = np.searchsorted(breaks, at, side="left")  # a line break belongs to the line that it ends
    words = np.cumsum(np.array([True, *word_starts[1:]], dtype=bool)) - 1 if len(pieces) else np.zeros(0, np.int64)
    kind = np.array([_class_of(*one) for one in zip(pieces, word_starts, strict=True)], dtype=np.int64)
    _, index, back = np.unique(line, return_index=True, return_inverse=True)
    bracket, quote = _opened(text, at)
    token = lambda places: np.where(places >= 0, np.searchsorted(spans[:, 0], places, side="right") - 1, -1)  # noqa: E731
    columns = {
        "word": words,
        "line": line,
        "first": index[back],
        "bracket": token(bracket),
        "quote": token(quote),
        "kind": kind,
    }
    return Structure({**columns, **_lines(text, breaks, at, line)})


@lru_cache(maxsize=1 << 16)
def _class_of(piece: str, begins: bool) -> int:
    """Which of CLASSES a token is."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    body = piece.strip()
    if not body:
        return CLASSES.index("line break" if "\n" in piece else "punctuation")
    if not any(letter.isalnum() for letter in body):
        return CLASSES.index("punctuation")
    if not any(letter.isalpha() for letter in body):
        return CLASSES.index("number")
    if not begins:
        return CLASSES.index("piece of a word")
    if body.lower() in ENGLISH_STOP_WORDS:
        return CLASSES.index("function word")
    return CLASSES.index("capitalised" if body[0].isupper() else "word")


def _opened(text: str, at: Ints) -> tuple[Ints, Ints]:
    """For each of the characters `at` where the innermost bracket, and where the quote around it was opened; -1 for none.

    Walks over the marks of the text once and notes what is open behind each; a closing mark counts as inside, an opening one
    as outside. A blank line closes quotes: one that nobody closed would turn all later ones round.
    """
    places, brackets, quotes = [-1], [-1], [-1]
    stack: list[tuple[str, int]] = []
    quote: tuple[str, int] | None = None
    for found in _MARKS.finditer(text):
        mark, place = found[0], found.start()
        if mark.isspace():
            quote = None
        elif mark in "([{":
            stack.append((mark, place))
        elif mark in _PAIRS:
            if any(opened == _PAIRS[mark] for opened, _ in stack):
                while stack.pop()[0] != _PAIRS[mark]:
                    pass
        elif quote is not None and mark in (quote[0], _QUOTES.get(quote[0])):
            quote = None
        elif quote is None and (mark == '"' or mark in _QUOTES):
            quote = mark, place
        places.append(place)
        brackets.append(stack[-1][1] if stack else -1)
        quotes.append(quote[1] if quote is not None else -1)
    before = np.searchsorted(
        np.array(places[1:], dtype=np.int64), at, side="left"
    )  # marks that stand before the character
    return np.array(brackets, dtype=np.int64)[before], np.array(quotes, dtype=np.int64)[before]


def _lines(text: str, breaks: Ints, at: Ints, line: Ints) -> dict[str, Ints]:
    """The columns that hang on lines: item, marker, table, cell, header."""
    edges = [0, *(int(one) + 1 for one in breaks)]
    rows = [text[start:stop] for start, stop in zip(edges, [*edges[1:], len(text) + 1], strict=True)]
    item, table = (_runs([test(row) for row in rows]) for test in (lambda row: bool(_ITEM.match(row)), _is_row))
    header = _headers(rows)
    ends = np.array(
        [start + (found.end() if (found := _ITEM.match(row)) else 0) for start, row in zip(edges, rows, strict=True)]
    )
    bars = np.array([i for i, sign in enumerate(text) if sign == "|"], dtype=np.int64)
    cells = np.searchsorted(bars, at, side="right") - np.searchsorted(
        bars, np.array(edges, dtype=np.int64)[line], side="left"
    )
    in_table = table[line] >= 0
    return {
        "item": item[line],
        "marker": np.where(at < ends[line], item[line], -1),
        "table": table[line],
        "cell": np.where(in_table, cells, -1),
        "header": header[line],
    }


def _is_row(row: str) -> bool:
    """Whether a line is one of a table: two bars or more."""
    return row.count("|") >= 2


def _runs(inside: list[bool]) -> Ints:
    """[line] the number of its run of neighbouring lines that are `inside`; blank lines of other kind end one; -1 outside."""
    found, number, before = [], -1, False
    for one in inside:
        number += one and not before
        found.append(number if one else -1)
        before = one
    return np.array(found, dtype=np.int64)


def _headers(rows: list[str]) -> Ints:
    """[line] the nearest earlier line that is less indented, of an indented line; -1 for none."""
    found: list[int] = []
    open_: list[tuple[int, int]] = []
    for number, row in enumerate(rows):
        body = row.lstrip(" \t")
        if not body.strip():
            found.append(-1)
            continue
        indent = len(row[: len(row) - len(body)].expandtabs(4))
        while open_ and open_[-1][0] >= indent:
            open_.pop()
        found.append(open_[-1][1] if open_ else -1)
        open_.append((indent, number))
    return np.array(found, dtype=np.int64)
