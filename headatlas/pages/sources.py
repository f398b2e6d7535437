"""Where texts come from: a file, a folder, a table, a data set, or the bundled prose. Nothing here imports torch until it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from headatlas.errors import BadInput
from headatlas.reading import Source, read_text

TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_LARGEST = 1 << 30
HINT = "Give a text file, a table with a column 'text' (.jsonl, .csv, .parquet), a folder of such files, or a Hub data set."

Given = str | Path | Sequence[str] | None


class Document(NamedTuple):
    """A text and what errors and pages call it."""

    name: str
    text: str


def documents(corpus: Given = None) -> Iterator[Document]:
    """The texts of a corpus in a fixed order: of a file, a folder (by name), a Hub data set, a list; None: the bundled prose.

    A file that is no table is one text; of tables the column "text" is read. Raises BadInput.
    """
    if corpus is None:
        from headatlas.tasks._passages import passages

        named = [[Document(name, text) for text in texts] for name, texts in passages().items()]
        yield from (one for row in zip_longest(*named) for one in row if one is not None)  # registers in turn
        return
    if not isinstance(corpus, str | Path):
        yield from (Document(f"text {number}", text) for number, text in enumerate(corpus, 1))
        return
    place = Path(corpus).expanduser()
    if place.is_dir():
        files = [file for file in sorted(place.rglob("*")) if file.is_file() and not file.name.startswith(".")]
        if not files:
            raise BadInput(f"{place} holds no files.", HINT)
        for file in files:
            yield from _of_file(file, str(file.relative_to(place)))
    elif place.exists():
        yield from _of_file(place, place.name)
    else:
        demand_corpus(str(corpus))
        yield from _of_table(str(corpus), str(corpus))


def demand_corpus(corpus: str) -> None:
    """Raise BadInput where a name leads to no corpus, as far as no network is asked."""
    from headatlas.benchmarks._rows import is_hub_id

    place = Path(corpus).expanduser()
    meant = corpus.startswith((".", "/", "~")) or place.suffix.lower() in (*TABLES, ".txt", ".md")
    if not place.exists() and (meant or not is_hub_id(corpus)):
        raise BadInput(f"There is no file or folder {place}.", HINT)


def _of_file(file: Path, name: str) -> Iterator[Document]:
    if file.suffix.lower() in TABLES:
        yield from _of_table(str(file), name)
    else:
        yield Document(name, read_text(Source(file, HINT, BadInput, largest=_LARGEST, pipe=True)))


def _of_table(source: str, name: str) -> Iterator[Document]:
    from headatlas.benchmarks._rows import Layout, rows_of_source

    for number, row in enumerate(rows_of_source(source, Layout(("text",)), "", "a column 'text'"), 1):
        yield Document(f"{name}, row {number}", row.text("text"))
