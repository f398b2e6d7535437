"""Texts to read: a file, a folder, a data set, or the bundled prose, cut into windows of one length.

Windows never cross from one text into the next, and each begins and ends as any text does for this model. Of a text are
kept its characters, its ids and its structure, some fifty bytes a token: what a model computes on them is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.pages.sources import HINT, Given, documents
from headatlas.pages.structure import Structure, structure_of
from headatlas.task import Batch

LENGTH = 512  # tokens of a window, start and end tokens included, where the model reads as many
TOKENS = 16_384  # of a corpus that are read unless more are asked for
SHORTEST = 16  # tokens of a text below which it is left out


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
    """What is read, in windows. name: of the corpus. front, back: start and end tokens around each window. length: tokens of a whole window.

    left_out: texts that were too short. prompt: tokens at the beginning of each window whose queries are not looked at, but for the last.
    """

    name: str
    texts: tuple[Read, ...]
    windows: tuple[Window, ...]
    front: tuple[int, ...]
    back: tuple[int, ...]
    length: int
    left_out: int = 0
    prompt: int = 0

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
        raise BadInput(f"The corpus has no text of {SHORTEST} tokens or more.", HINT)
    default = "bundled prose" if corpus is None else str(corpus) if isinstance(corpus, str | Path) else "texts"
    return Corpus(name or default, tuple(texts), tuple(windows), front, back, size, left_out)
