"""Tokens to draw at random, and orders in which nothing keeps its place."""

from __future__ import annotations

import numpy as np

from headatlas.task import Vocabulary

COMMON = 4000  # tokens among which common words are looked for
FEW = 132  # common words, below which a vocabulary has hardly any


def usable_ids(tokenizer: Vocabulary) -> np.ndarray:
    """Ordinary token ids without the most and the least frequent, where the vocabulary is large enough."""
    ids = np.array(tokenizer.plain_ids())
    if len(ids) < 1000:
        return ids
    return ids[len(ids) // 50 : min(len(ids) * 3 // 4, 40_000)]


def common_ids(tokenizer: Vocabulary) -> np.ndarray:
    """Ids of common words; of a vocabulary with hardly any words those that the task itself has."""
    ids = tokenizer.plain_ids()[:COMMON]
    starts = [one for one, begins in zip(ids, tokenizer.word_starts(ids), strict=True) if begins]
    return np.array(starts) if len(starts) >= FEW else usable_ids(tokenizer)


def scrambled(length: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation that keeps no element in its place and no element next to its old successor."""
    while True:
        order = rng.permutation(length)
        if not (order == np.arange(length)).any() and not (np.diff(order) == 1).any():
            return order
