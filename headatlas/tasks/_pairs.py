"""Sentences in pairs of opposite truth that differ in a word or two: where they differ, and a third that makes no sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from headatlas.tasks._prompts import Piece, halved, shuffled

STOPS = ".?"


class Pair(NamedTuple):
    """Three sentences as pieces: that of one truth, that of the other, and one with words from another topic."""

    number: int
    topic: int
    own: list[Piece]
    other: list[Piece]
    nonsense: list[Piece]


def pairs(
    topics: Mapping[str, Sequence[Sequence[str]]], side: int, half: str, rng: np.random.Generator
) -> Iterator[Pair]:
    """Every pair of one half in random order, with its sentence of `side` (0 or 1) as its own.

    Roles: decisive (the words that differ) and stop (the sign at the end). Each sentence begins with a space.
    """
    names = list(topics)
    words = {name: sorted({word for pair in topics[name] for word in _decisive(*pair)}) for name in names}
    numbered = [(topic, pair) for topic, name in enumerate(names) for pair in topics[name]]
    for number, (topic, pair) in shuffled(halved(enumerate(numbered), half), rng):
        places = _places(*pair)
        strange = [word for name in names if name != names[topic] for word in words[name]]
        for _ in range(20):  # several, since one of the right number of tokens is wanted
            drawn = [str(word) for word in rng.choice(strange, size=len(places), replace=False)]
            own = pair[side].split(" ")
            swapped = dict(zip(places, drawn, strict=True))
            third = [swapped[i] + _stop(word) if i in swapped else word for i, word in enumerate(own)]
            yield Pair(number, topic, *(_pieces(text, places) for text in (own, pair[1 - side].split(" "), third)))


def _places(first: str, second: str) -> list[int]:
    """The words, counted from 0, in which two sentences differ."""
    return [i for i, (a, b) in enumerate(zip(first.split(" "), second.split(" "), strict=True)) if a != b]


def _stop(word: str) -> str:
    return word[-1] if word[-1] in STOPS else ""


def _decisive(first: str, second: str) -> list[str]:
    return [text.split(" ")[i].rstrip(STOPS) for i in _places(first, second) for text in (first, second)]


def _pieces(words: Sequence[str], places: Sequence[int]) -> list[Piece]:
    found = []
    for i, word in enumerate(words):
        found.append(Piece(f" {word.rstrip(STOPS)}", "decisive" if i in places else ""))
        if _stop(word):
            found.append(Piece(_stop(word), "stop"))
    return found
