"""Rows with named columns out of whatever a user keeps prompts in: dictionaries, files, tables, data sets."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headatlas.errors import BadInput
from headatlas.reading import Source, parse_json, read_json_lines, read_text, read_whole_table
from headatlas.reading.chats import is_chat

MOST = 100_000  # rows: a data set that is streamed may have no end
_LARGEST = 256 << 20  # bytes of a file
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
FORMS = f"Give a list of dictionaries, a file ({', '.join(SUFFIXES)}), a pandas or Arrow table, or a data set of `datasets`."


class Row(NamedTuple):
    """One row. where: how errors call it; number: of its line in a file where lines have numbers, else counted from 1."""

    where: str
    number: int
    values: dict[str, Any]


def rows_of(source: Any, prompt: str) -> list[Row]:
    """The rows of `source` (see FORMS); texts and chats alone become rows of the column `prompt`. Raises BadInput."""
    if isinstance(source, str | Path):
        found = _file(Path(source), prompt)
    else:
        found = [
            Row(f"Row {number}", number, _columns(f"Row {number}", one, prompt))
            for number, one in enumerate(_few(_items(source, prompt)), 1)
        ]
    if not found:
        raise BadInput(f"{source if isinstance(source, str | Path) else 'This'} holds no prompts.", FORMS)
    return [
        Row(where, number, {name: _plain(value) for name, value in one.items() if not _absent(value)})
        for where, number, one in found
    ]


def _items(source: Any, prompt: str) -> Iterable[Any]:
    """What has the rows, one by one."""
    if hasattr(source, "to_pylist"):  # Arrow
        return source.to_pylist()
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        return source.to_dict("records")
    if is_chat(source):
        return [source]
    if isinstance(source, Mapping):
        return _of_mapping(source, prompt)
    if isinstance(source, Iterable):
        return source
    raise BadInput(f"{type(source).__name__} holds no prompts.", FORMS)


def _of_mapping(source: Mapping[str, Any], prompt: str) -> Iterable[Any]:
    """One row, or columns by name; a data set of several splits is neither."""
    split = next((name for name, value in source.items() if hasattr(value, "column_names")), None)
    if split is not None:
        raise BadInput(f"This data set has the splits {', '.join(source)}.", f"Choose one, such as data['{split}'].")
    main = source.get(prompt)
    if not isinstance(main, Sequence) or isinstance(main, str) or is_chat(main):
        return [source]
    lengths = {name: len(column) for name, column in source.items()}
    odd = next((name for name, n in lengths.items() if n != len(main)), None)
    if odd is not None:
        raise BadInput(f"Column '{odd}' has {lengths[odd]} values, column '{prompt}' {len(main)}.", "Give one each.")
    return [dict(zip(source, values, strict=True)) for values in zip(*source.values(), strict=True)]


def _few(items: Iterable[Any]) -> Iterator[Any]:
    found = list(itertools.islice(items, MOST + 1))
    if len(found) > MOST:
        raise BadInput(f"There are more than {MOST:,} prompts.", "Take some of them, such as data.take(200).")
    yield from found


def _columns(where: str, one: Any, prompt: str) -> dict[str, Any]:
    if isinstance(one, str) or is_chat(one):
        return {prompt: one}
    if not isinstance(one, Mapping):
        raise BadInput(f"{where} is {type(one).__name__}, not a dictionary with columns.", FORMS)
    return dict(one)


def _file(path: Path, prompt: str) -> list[Row]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        hint = f"Files of prompts end in {', '.join(SUFFIXES)}; a text of its own is given as a list: [text]."
        raise BadInput(f"'{str(path)[:60]}' is no file of prompts.", hint)
    source = Source(path, FORMS, BadInput, largest=_LARGEST, pipe=True)
    name = path.name
    if suffix == ".jsonl":
        lines = read_json_lines(source, lambda line, wrong: BadInput(f"Line {line} of {name} {wrong}.", FORMS))
        return [_row(f"Line {number} of {name}", number, one, prompt) for number, one in lines]
    if suffix in (".csv", ".tsv"):
        return _delimited(source, "\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet":
        found: Any = read_whole_table(source, MOST)
    else:
        text = read_text(source)
        with source.explained():
            found = parse_json(text)
        found = list(_of_mapping(found, prompt)) if isinstance(found, dict) else found
    if not isinstance(found, list):
        raise source.bad("is neither a list of objects nor an object of columns")
    return [_row(f"Row {number} of {name}", number, one, prompt) for number, one in enumerate(_few(found), 1)]


def _row(where: str, number: int, one: Any, prompt: str) -> Row:
    return Row(where, number, _columns(where, one, prompt))


def _delimited(source: Source, delimiter: str) -> list[Row]:
    """A table of text with a head of names; an empty field is none. Rows are named by the line on which they end."""
    name, found = source.path.name, []
    text = io.StringIO(read_text(source), newline="")  # line breaks inside quotes are the reader's to keep
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        heads = [head or "" for head in reader.fieldnames or ()]
        twice = next((head for head in heads if heads.count(head) > 1), None)
        if twice is not None:
            raise source.bad(f"has the column '{twice}' twice")
        for one in reader:
            number = reader.line_num
            if None in one or None in one.values():
                raise BadInput(
                    f"Line {number} of {name} has another number of fields than its head ({len(heads)}).", FORMS
                )
            found.append(Row(f"Line {number} of {name}", number, {k: v for k, v in one.items() if v != ""}))
            if len(found) > MOST:
                raise BadInput(f"{name} has more than {MOST:,} prompts.", "Take some of them.")
    except csv.Error as error:
        raise BadInput(f"Line {reader.line_num} of {name}: {error}.", FORMS) from error
    return found


def _absent(value: Any) -> bool:
    """Whether a table has no value here: None, and what pandas writes for none."""
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float) and math.isnan(value))
    )


def _plain(value: Any) -> Any:
    """Arrays and numbers of NumPy, which tables read from files hold, as lists and numbers."""
    return value.tolist() if hasattr(value, "tolist") else value


def shown(value: Any) -> str:
    """A value as an error quotes it."""
    try:
        return json.dumps(value, ensure_ascii=False)[:60]
    except (TypeError, ValueError):
        return repr(value)[:60]
