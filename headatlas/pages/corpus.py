"""Texts to read: a file, a folder, a data set, or the bundled prose, cut into windows of one length.

Windows never cross from one text into the next, and each begins and ends as any text does for this model. Of a text are
kept its characters, its ids and its structure, some fifty bytes a token: what a model computes on them is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.benchmarks._rows import Layout, is_hub_id, rows_of_source
from headatlas.errors import BadInput
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.pages.structure import Structure, structure_of
from headatlas.reading import Source, read_text
from headatlas.task import Batch
from headatlas.tasks._passages import passages

LENGTH = 512  # tokens of a window, start and end tokens included, where the model reads as many
TOKENS = 16_384  # of a corpus that are read unless more are asked for
SHORTEST = 16  # tokens of a text below which it is left out
TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_LARGEST = 1 << 30
_HINT = "Give a text file, a table with a column 'text' (.jsonl, .csv, .parquet), a folder of such files, or a Hub data set."

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
            raise BadInput(f"{place} holds no files.", _HINT)
        for file in files:
            yield from _of_file(file, str(file.relative_to(place)))
    elif place.exists():
        yield from _of_file(place, place.name)
    else:
        demand_corpus(str(corpus))
        yield from _of_table(str(corpus), str(corpus))


def demand_corpus(corpus: str) -> None:
    """Raise BadInput where a name leads to no corpus, as far as no network is asked."""
    place = Path(corpus).expanduser()
    meant = corpus.startswith((".", "/", "~")) or place.suffix.lower() in (*TABLES, ".txt", ".md")
    if not place.exists() and (meant or not is_hub_id(corpus)):
        raise BadInput(f"There is no file or folder {place}.", _HINT)


def _of_file(file: Path, name: str) -> Iterator[Document]:
    if file.suffix.lower() in TABLES:
        yield from _of_table(str(file), name)
    else:
        yield Document(name, read_text(Source(file, _HINT, BadInput, largest=_LARGEST, pipe=True)))


def _of_table(source: str, name: str) -> Iterator[Document]:
    for number, row in enumerate(rows_of_source(source, Layout(("text",)), "", "a column 'text'"), 1):
        yield Document(f"{name}, row {number}", row.text("text"))


@dataclass(frozen=True)
class Read:
    """One text as a model reads it: its ids [token], the characters (from, to) [token, 2] each stands for, its structure."""

    name: str
    text: str
    ids: NDArray[np.int64]
    spans: NDArray[np.int64]
    structure: Structure


class Window(NamedTuple):
    """Tokens start..stop of text number `document`."""

    document: int
    start: int
    stop: int


@dataclass(frozen=True)
class Corpus:
    """What is read, in windows. name: of the corpus. front, back: start and end tokens around each window. length: tokens of a whole window."""

    name: str
    texts: tuple[Read, ...]
    windows: tuple[Window, ...]
    front: tuple[int, ...]
    back: tuple[int, ...]
    length: int
    left_out: int = 0

    @property
    def n_tokens(self) -> int:
        """Tokens of text that are read, start and end tokens left out."""
        return sum(window.stop - window.start for window in self.windows)

    @property
    def digest(self) -> str:
        """A hash of all that is read."""
        found = hashlib.sha256(repr((self.front, self.back, self.length)).encode())
        for window in self.windows:
            found.update(self.texts[window.document].ids[window.start : window.stop].tobytes())
        return found.hexdigest()[:16]

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The windows of these numbers as one batch, padded behind."""
        rows = [[*self.front, *self.ids(number).tolist(), *self.back] for number in numbers]
        longest = max(map(len, rows))
        lengths = torch.tensor([len(row) for row in rows])
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return Batch(tokens, torch.arange(longest) < lengths[:, None])

    def ids(self, number: int) -> NDArray[np.int64]:
        """The ids of one window without what stands around it."""
        window = self.windows[number]
        return self.texts[window.document].ids[window.start : window.stop]

    def column(self, numbers: Sequence[int], name: str, longest: int) -> Tensor:
        """[window, position] one value of the texts' structure, -1 at start and end tokens and padding.

        Values that are places in the text come as positions in the window, -1 where they lie before it.
        """
        found = torch.full((len(numbers), longest), -1)
        for row, number in enumerate(numbers):
            window, front = self.windows[number], len(self.front)
            values = torch.from_numpy(
                self.texts[window.document].structure.column(name, window.start, window.stop, front)
            )
            found[row, front : front + len(values)] = values
        return found


def read_corpus(
    tokenizer: Tokenizer, corpus: Given = None, *, tokens: int = TOKENS, length: int | None = None, name: str = ""
) -> Corpus:
    """The first `tokens` tokens of a corpus, in windows of `length` tokens (default LENGTH, at most the model's context).

    name: what pages call it; default its path, "bundled prose" or "texts". Texts of fewer than SHORTEST tokens are left out
    and counted; so short an end of a text is left out too. Raises BadInput for a length that the model does not read, and where nothing is left.
    """
    front, back = tokenizer.front, tokenizer.back
    size = min(LENGTH, tokenizer.context) if length is None else length
    room = size - len(front) - len(back)
    if room < SHORTEST or size > tokenizer.context:
        raise BadInput(
            f"Windows of {size} tokens cannot be read.",
            f"Give {SHORTEST + len(front) + len(back)} to {tokenizer.context} tokens.",
        )
    if tokens < SHORTEST:
        raise BadInput(f"{tokens} tokens are too few to say what heads do.", f"Give {SHORTEST} or more.")
    texts: list[Read] = []
    windows: list[Window] = []
    left, left_out = tokens, 0
    for one in documents(corpus):
        if left < SHORTEST:
            break
        spans = np.array(tokenizer.spans(one.text), dtype=np.int64).reshape(-1, 2)
        ids = np.array(tokenizer.encode(one.text), dtype=np.int64)
        if len(ids) < SHORTEST:
            left_out += 1
            continue
        ids, spans = ids[:left], spans[:left]
        starts = tokenizer.word_starts(ids.tolist())
        texts.append(Read(one.name, one.text, ids, spans, structure_of(one.text, spans, starts)))
        cuts = [(start, min(start + room, len(ids))) for start in range(0, len(ids), room)]
        windows += [Window(len(texts) - 1, *cut) for cut in cuts if cut[1] - cut[0] >= SHORTEST]
        left -= len(ids)
    if not windows:
        raise BadInput(f"The corpus has no text of {SHORTEST} tokens or more.", _HINT)
    default = "bundled prose" if corpus is None else str(corpus) if isinstance(corpus, str | Path) else "texts"
    return Corpus(name or default, tuple(texts), tuple(windows), front, back, size, left_out)
