"""A pair of made-up languages: the second puts the verb first, adjectives behind their nouns, and lets both agree in number.

Source: (the | a) [adjective] noun, or a name; then now and then "near" and a noun of any number; verb; the same as object.
Target: verb, subject, object; each noun before its adjective, "near" behind its noun; no articles. The verb agrees with the
subject across the noun between them, adjectives agree with their noun. Names are written as they are, and some never occur
in training: nothing but copying can write them.
"""

# ruff: noqa: SIM905 (words read better as text than as a list)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NOUNS, ADJECTIVES, VERBS, NAMES, UNSEEN = 12, 8, 10, 40, 10
PAD, BOS, EOS, UNKNOWN, THE, A, NEAR = range(7)
_N = NEAR + 1  # source nouns, singular and plural
_ADJ = _N + 2 * NOUNS
_V = _ADJ + ADJECTIVES
SOURCE = _V + VERBS  # ids below are words of the source language
_TN = SOURCE  # target nouns, adjectives, verbs: singular and plural each; then "near"
_TADJ = _TN + 2 * NOUNS
_TV = _TADJ + 2 * ADJECTIVES
TARGET_NEAR = _TV + 2 * VERBS
TARGET = TARGET_NEAR + 1  # ids below, from SOURCE on, are words of the target language
SIZE = TARGET + NAMES
LONGEST = 12

_NOUN_STEMS = "dog cat king queen bird horse farmer doctor teacher sister brother friend".split()
_ADJECTIVE_STEMS = "old young tall small happy brave quiet clever".split()
_VERB_STEMS = "saw heard helped followed called found liked met watched taught".split()


def _turned(words: list[str], endings: tuple[str, str]) -> list[str]:
    """Words of the second language: those of the first read backwards, with an ending for each number."""
    return [word[::-1] + ending for word in words for ending in endings]


# How the words with ids below TARGET are spelled; names are no words of the vocabulary.
WORDS = (
    "<pad>", "<s>", "</s>", "<unk>", "the", "a", "near", *(f"{noun}{ending}" for noun in _NOUN_STEMS for ending in ("", "s")),
    *_ADJECTIVE_STEMS, *_VERB_STEMS, *_turned(_NOUN_STEMS, ("a", "i")), *_turned(_ADJECTIVE_STEMS, ("o", "u")),
    *_turned(_VERB_STEMS, ("e", "en")), "raen",
)  # fmt: skip


def meaning(word: int) -> int:
    """The word of the first language that means the same, in the singular; the word itself where it has no such form."""
    if word >= TARGET_NEAR:
        return NEAR if word == TARGET_NEAR else word
    for first, own in ((_TV, _V), (_TADJ, _ADJ)):
        if word >= first:
            return own + (word - first) // 2
    noun = word - _TN if word >= _TN else word - _N
    return _N + noun // 2 * 2 if _N <= word < _ADJ or word >= _TN else word


@dataclass(frozen=True)
class Pair:
    """A sentence in both languages; links: (target place, source place). subject: (verb, head noun or name) in the source."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    links: tuple[tuple[int, int], ...]
    subject: tuple[int, int]
    plural: bool


class Language:
    """Draws pairs; unseen: only such with names that training has not."""

    def __init__(self, rng: np.random.Generator, *, unseen: bool = False) -> None:
        self.rng, self.unseen = rng, unseen

    def _below(self, n: int) -> int:
        return int(self.rng.integers(n))

    def _name(self) -> int:
        return TARGET + (NAMES - UNSEEN + self._below(UNSEEN) if self.unseen else self._below(NAMES - UNSEEN))

    def _noun_phrase(self, at: int, name: bool) -> tuple[list[int], list[tuple[int, int]], int, bool]:
        """(source words, (target word, source place) in target order, place of the head, plural)."""
        if name:
            word = self._name()
            return [word], [(word, at)], at, False
        noun, plural = self._below(NOUNS), self.rng.random() < 0.5
        words, head = [THE if plural or self.rng.random() < 0.5 else A], at + 1
        told = []
        if self.rng.random() < 0.5:
            adjective = self._below(ADJECTIVES)
            words.append(_ADJ + adjective)
            told.append((_TADJ + 2 * adjective + plural, head))
            head += 1
        words.append(_N + 2 * noun + plural)
        return words, [(_TN + 2 * noun + plural, head), *told], head, plural

    def pair(self) -> Pair:
        """One sentence in both languages."""
        named = self._below(4) if not self.unseen else 1 + self._below(3)  # bits: subject and object are names
        source, subject, head, plural = self._noun_phrase(0, bool(named & 1))
        if self.rng.random() < 0.6:
            more, other, _, _ = self._noun_phrase(len(source) + 1, False)
            subject = [*subject, *other, (TARGET_NEAR, len(source))]
            source = [*source, NEAR, *more]
        verb, at = self._below(VERBS), len(source)
        source = [*source, _V + verb]
        more, object_, _, _ = self._noun_phrase(len(source), bool(named & 2))
        told = [(_TV + 2 * verb + plural, at), *subject, *object_]
        links = tuple((i, place) for i, (_, place) in enumerate(told))
        return Pair((*source, *more), tuple(word for word, _ in told), links, (at, head), plural)

    def pairs(self, n: int) -> list[Pair]:
        """`n` of them, of LONGEST words at most."""
        found: list[Pair] = []
        while len(found) < n:
            one = self.pair()
            if len(one.source) < LONGEST:
                found.append(one)
        return found


@dataclass(frozen=True)
class Sentences:
    """Pairs as tensors [sentence, place], PAD behind their end: source with EOS, what the decoder reads, what it should write.

    links: [link, 3] sentence, target place, source place of all of them.
    """

    pairs: list[Pair]
    source: Tensor
    read: Tensor
    write: Tensor
    links: Tensor

    @classmethod
    def of(cls, pairs: list[Pair]) -> Sentences:
        """The tensors of pairs."""
        return cls(
            pairs,
            _filled([[*one.source, EOS] for one in pairs]),
            _filled([[BOS, *one.target] for one in pairs]),
            _filled([[*one.target, EOS] for one in pairs]),
            torch.tensor([(i, target, source) for i, one in enumerate(pairs) for target, source in one.links]),
        )


def _filled(rows: list[list[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def hidden(ids: Tensor) -> Tensor:
    """What the model gets to see: all names are the unknown word."""
    return ids.masked_fill(ids >= TARGET, UNKNOWN)
