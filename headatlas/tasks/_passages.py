"""The bundled passages of connected text, and stretches of them in tokens."""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Vocabulary, edges

LENGTH = 128  # tokens of a text, bos and eos included, where the model reads as many


@functools.cache
def passages() -> dict[str, tuple[str, ...]]:
    """The bundled passages by register; self-written, see tasks/data/prose/README.md for the licence."""
    folder = resources.files("headatlas.tasks") / "data" / "prose"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".txt"):
            parts = file.read_text(encoding="utf-8").split("\n%%\n")
            found[file.name.removesuffix(".txt")] = tuple(part.strip() for part in parts if part.strip())
    return found


def windowed(tokenizer: Vocabulary, text: str, length: int, rng: np.random.Generator) -> list[int]:
    """[bos] tokens [eos], `length` in all, from a random word of the text on. Raises UnfitTask for too short a text."""
    front, back = edges(tokenizer)
    ids, room = tokenizer.encode(text), length - len(front) - len(back)
    if len(ids) < room:
        raise UnfitTask(f"A bundled passage has {len(ids)} tokens in this tokenizer, {room} are needed.")
    starts = [i for i, begins in enumerate(word_starts(tokenizer, ids)) if begins and i <= len(ids) - room] or [0]
    start = int(rng.choice(starts))
    return [*front, *ids[start : start + room], *back]


def word_starts(tokenizer: Vocabulary, ids: list[int]) -> list[bool]:
    """Whether each token begins a word; the first always does."""
    return [True, *tokenizer.word_starts(ids)[1:]] if ids else []
