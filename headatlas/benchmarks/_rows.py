"""Rows out of the files of a benchmark, or of its data set on the Hub, as they were published."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from headatlas.errors import BadInput
from headatlas.own_prompts.rows import Row, shown
from headatlas.reading import Source, parse_json, read_json_lines, read_text, read_whole_table, reason

MOST = 1_000_000  # rows of one table
_LARGEST = 1 << 30  # bytes of a file
_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([\w.-]+))?(?::([\w.-]+))?")
T = TypeVar("T")


@dataclass(frozen=True)
class Fields:
    """One row's columns; what cannot be is told with file, row and column. where: how errors call the row."""

    where: str
    values: Mapping[str, Any]

    def __contains__(self, column: str) -> bool:
        return column in self.values

    def bad(self, column: str, what: str) -> BadInput:
        """The error that names row and column; `what` ends the sentence."""
        return BadInput(f"{self.where}, column '{column}': {what}.", "The file must be as it was published.")

    def any(self, column: str) -> Any:
        """A column's value. Raises BadInput where the row has none."""
        if self.values.get(column) is None:
            there = ", ".join(map(str, self.values)) or "none"
            raise BadInput(f"{self.where} has no '{column}'; its columns are {there}.", "Is it this benchmark's file?")
        return self.values[column]

    def text(self, column: str) -> str:
        """A text that is not blank, without the spaces around it."""
        found = self.any(column)
        if not isinstance(found, str) or not found.strip():
            raise self.bad(column, f"a text is wanted, got {shown(found)}")
        return found.strip()

    def texts(self, column: str, least: int = 1) -> list[str]:
        """A list of `least` texts or more."""
        found = self.any(column)
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found) or len(found) < least:
            raise self.bad(column, f"a list of {least} or more texts is wanted, got {shown(found)}")
        return [one.strip() for one in found]

    def one_of(self, column: str, known: Mapping[Any, T]) -> T:
        """What a value stands for, where it is one of `known`; numbers may be written as text."""
        found = self.any(column)
        spelt = {str(name): value for name, value in known.items()}
        if isinstance(found, bool) or str(found).strip() not in spelt:
            raise self.bad(column, f"{shown(found)} is none of {', '.join(spelt)}")
        return spelt[str(found).strip()]

    def inner(self, column: str) -> Fields:
        """The columns of a value that has some itself."""
        found = self.any(column)
        if not isinstance(found, Mapping):
            raise self.bad(column, f"an object is wanted, got {shown(found)}")
        return Fields(f"{self.where}, column '{column}'", found)

    def each(self, column: str) -> list[Fields]:
        """The rows that a value holds, each named by its number."""
        found = self.any(column)
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise self.bad(column, f"a list of objects is wanted, got {shown(found)}")
        return [Fields(f"{self.where}, {column} {number}", one) for number, one in enumerate(found, 1)]


@dataclass(frozen=True)
class Layout:
    """How the files of a benchmark are laid out.

    columns: the names that a table's first line may have; where it has none of them, `head` names its columns in order.
    delimiter: of .csv files. quoted: whether fields stand in quotes. data: the key under which a JSON object keeps its list
    of rows; "" where a whole object is one row. read: of a file of another form, its rows. suffixes: of files in a folder.
    """

    columns: tuple[str, ...]
    head: tuple[str, ...] = ()
    delimiter: str = ","
    quoted: bool = True
    data: str = ""
    read: Callable[[Source], Iterator[Row]] | None = None
    suffixes: tuple[str, ...] = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


def rows_of_source(source: str, layout: Layout, hub: str, files: str) -> list[Fields]:
    """The rows of a file, of all files of a folder in order of their names, or of a data set on the Hub. Raises BadInput."""
    path = Path(source).expanduser()
    if path.is_dir():
        found = [one for one in sorted(path.rglob("*")) if one.is_file() and one.suffix.lower() in layout.suffixes]
        if not found:
            raise BadInput(f"{path} holds no file that ends in {', '.join(layout.suffixes)}.", f"Wanted: {files}.")
        rows = [row for one in found for row in _of_file(one, layout, str(one.relative_to(path)))]
    elif path.exists():
        rows = list(_of_file(path, layout, path.name))
    else:
        rows = list(_of_hub(source, hub, files))
    if not rows:
        raise BadInput(f"{source} holds no rows.", f"Wanted: {files}.")
    return [Fields(row.where, row.values) for row in rows]


def is_hub_id(source: str) -> bool:
    """Whether a source can be a data set on the Hub: org/name, with @revision, :configuration and :split if wanted."""
    return _HUB.fullmatch(source) is not None


def _of_hub(source: str, hub: str, files: str) -> Iterator[Row]:
    """Rows by the `datasets` library; what `source` leaves out is as in `hub`, where that is the same data set."""
    spelt = _HUB.fullmatch(source)
    if spelt is None:
        example = f", or a Hub id such as {hub}" if hub else ""
        raise BadInput(f"There is no file or folder {source}.", f"Give {files}{example}.")
    try:
        import datasets
    except ImportError as error:
        hint = "Install it (pip install 'headatlas[data]'), or fetch the files and give their path."
        raise BadInput(f"{source} is read from the Hub by the package `datasets`, which is missing.", hint) from error
    name, revision, config, split = spelt.groups()
    if hub.partition(":")[0] == name:
        own = _HUB.fullmatch(hub)
        assert own is not None
        config, split = config or own[3], split or own[4]
    try:
        found = datasets.load_dataset(name, config, split=split, revision=revision)
    except (
        Exception
    ) as error:  # whatever stops a library that reads files of others, the user must hear which they were
        hint = "Name it as org/name:configuration:split, or fetch the files and give their path."
        raise BadInput(f"{source} cannot be loaded: {reason(error)}.", hint) from error
    if isinstance(found, Mapping):
        raise BadInput(f"{source} has the splits {', '.join(found)}.", "Name one: org/name:configuration:split.")
    for number, one in enumerate(found, 1):
        yield Row(f"Row {number} of {source}", number, dict(one))


def _of_file(path: Path, layout: Layout, name: str) -> Iterator[Row]:
    source = Source(path, "The file must be as it was published.", BadInput, largest=_LARGEST, pipe=True)
    suffix = path.suffix.lower()
    if layout.read is not None and suffix not in (".csv", ".tsv", ".jsonl", ".parquet"):
        yield from (row._replace(where=row.where.replace(path.name, name)) for row in layout.read(source))
    elif suffix in (".csv", ".tsv"):
        yield from _table(source, layout, "\t" if suffix == ".tsv" else layout.delimiter, name)
    elif suffix == ".parquet":
        for number, row in enumerate(read_whole_table(source, MOST), 1):
            yield Row(f"Row {number} of {name}", number, row)
    elif suffix == ".jsonl":
        lines = read_json_lines(source, lambda line, wrong: BadInput(f"Line {line} of {name} {wrong}.", source.hint))
        yield from (_row(f"Line {number} of {name}", number, one) for number, one in lines)
    elif suffix == ".json":
        yield from _json(source, layout, name)
    else:
        raise BadInput(
            f"{name} has no ending that this benchmark's files have.", f"Wanted: {', '.join(layout.suffixes)}."
        )


def _json(source: Source, layout: Layout, name: str) -> Iterator[Row]:
    text = read_text(source)
    with source.explained():
        found = parse_json(text)
    if layout.data and isinstance(found, dict):
        if layout.data not in found:
            raise source.bad(f"has no '{layout.data}', under which its rows stand")
        found = found[layout.data]
    for number, one in enumerate(found if isinstance(found, list) else [found], 1):
        yield _row(f"Row {number} of {name}", number, one)


def _row(where: str, number: int, one: Any) -> Row:
    if not isinstance(one, Mapping):
        raise BadInput(f"{where} is {type(one).__name__}, not an object with columns.", "Is it this benchmark's file?")
    return Row(where, number, dict(one))


def _table(source: Source, layout: Layout, delimiter: str, name: str) -> Iterator[Row]:
    """Rows of a table of text, named by the line on which they end; columns by its first line, or by the layout's head."""
    text = io.StringIO(read_text(source), newline="")  # line breaks inside quotes are the reader's to keep
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting)
    head: Sequence[str] = ()
    try:
        for cells in reader:
            number = reader.line_num
            if not cells:
                continue
            if not head:
                named = [cell.strip() for cell in cells]
                if {*named} & {*layout.columns}:
                    head = named
                    continue
                if not layout.head:
                    raise source.bad(
                        f"begins with the columns {', '.join(named)[:80]}, not with {', '.join(layout.columns)}"
                    )
                head = layout.head
            if len(cells) != len(head):
                raise BadInput(
                    f"Line {number} of {name} has {len(cells)} fields; its columns are {', '.join(head)}.", source.hint
                )
            yield Row(f"Line {number} of {name}", number, dict(zip(head, cells, strict=True)))
    except csv.Error as error:
        raise BadInput(f"Line {reader.line_num} of {name}: {error}.", source.hint) from error
