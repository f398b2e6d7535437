"""Connected text in several registers, cut to one length: what heads do when the model simply reads."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import UnfitTask
from headatlas.renamed import old_names
from headatlas.task import Batch, Vocabulary, edges, next_token_loss, task
from headatlas.tasks._passages import LENGTH, passages, windowed, word_starts

SHORTEST = 4  # letters of a word that can count as rare
PUNCTUATION = frozenset(".,;:!?()[]{}\"'-—–…")


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """The same kinds of text written in small letters, without a line break."""
    return _built(tokenizer, n, rng, lambda text: " ".join(text.lower().split()))


@task(metric=next_token_loss, version=2, margin=0.3, second=_second)
def prose(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] and 127 tokens of a passage; loss is counted on every token after the sixteenth.

    Passages come from all registers in turn, each from a random place. Control: the same words in random order.
    """
    return _built(tokenizer, n, rng, str)


def _built(tokenizer: Vocabulary, n: int, rng: np.random.Generator, written: Callable[[str], str]) -> Batch:
    """Examples from passages as `written` makes them."""
    length = min(LENGTH, tokenizer.context)
    if length < 48:
        raise UnfitTask(f"prose needs 48 positions; this model has {tokenizer.context}.")
    rows = [windowed(tokenizer, written(text), length, rng) for text in _chosen(n, rng)]
    orders = [_shuffled(tokenizer, row, rng) for row in rows]
    batch = _described(tokenizer, rows, rng)
    control = _described(tokenizer, orders, rng)
    return Batch(batch.tokens, batch.mask, batch.positions, batch.marks, control=control)


def _chosen(n: int, rng: np.random.Generator) -> list[str]:
    """`n` passages, registers in turn, each register's passages in random order and again from the start when used up."""
    pools = [[texts[i] for i in rng.permutation(len(texts))] for texts in passages().values()]
    return [pools[i % len(pools)][i // len(pools) % len(pools[i % len(pools)])] for i in range(n)]


def _inner(tokenizer: Vocabulary, row: list[int]) -> tuple[int, int]:
    front, back = edges(tokenizer)
    return len(front), len(row) - len(back)


def _shuffled(tokenizer: Vocabulary, row: list[int], rng: np.random.Generator) -> list[int]:
    """The same tokens with the words in random order; pieces of a word stay together."""
    low, high = _inner(tokenizer, row)
    words: list[list[int]] = []
    for token, begins in zip(row[low:high], word_starts(tokenizer, row[low:high]), strict=True):
        words.append([token]) if begins or not words else words[-1].append(token)
    mixed = [token for i in rng.permutation(len(words)) for token in words[i]]
    return [*row[:low], *mixed, *row[high:]]


def _described(tokenizer: Vocabulary, rows: list[list[int]], rng: np.random.Generator) -> Batch:
    """Rows of one length as a batch, with words, punctuation, rare words and word pieces marked.

    special: what stands around the text ([CLS] and [SEP], or a start token); beside: as many tokens of the text next to it.
    """
    tokens = torch.tensor(rows)
    rank = {token: i for i, token in enumerate(tokenizer.plain_ids())}
    n, length = tokens.shape
    delimiter, word = torch.zeros(n, length, dtype=torch.long), torch.full((n, length), -1)
    lists: dict[str, list[list[int]]] = {
        name: []
        for name in (
            "delimiters",
            "special",
            "beside",
            "rare",
            "ordinary",
            "piece_query",
            "piece_key",
            "start_query",
            "start_key",
        )
    }
    for e, row in enumerate(rows):
        for name in ("piece_query", "piece_key", "start_query", "start_key"):
            lists[name].append([])
        low, high = _inner(tokenizer, row)
        begins = word_starts(tokenizer, row[low:high])
        words: list[list[int]] = []
        for place, token, first in zip(range(low, high), row[low:high], begins, strict=True):
            text = tokenizer.decode(token).strip()
            delimiter[e, place] = int(bool(text) and set(text) <= PUNCTUATION)
            words.append([place]) if first or not words or delimiter[e, place] or delimiter[
                e, words[-1][-1]
            ] else words[-1].append(place)
            word[e, place] = len(words) - 1
        lists["special"].append([*range(low), *range(high, len(row))])
        lists["beside"].append([*range(low, 2 * low), *range(2 * high - len(row), high)])
        lists["delimiters"].append([i for i in range(low, high) if delimiter[e, i]])
        plain = [places for places in words if not delimiter[e, places[0]]]
        letters = [places for places in plain if _is_word(tokenizer.decode([row[i] for i in places]).strip())]
        rare, ordinary = _rare(letters, row, rank, rng)
        lists["rare"].append(rare)
        lists["ordinary"].append(ordinary)
        # Each later piece with the earlier pieces of its word, and for comparison first pieces with the same offsets.
        groups = [(q, places[:i]) for places in plain for i, q in enumerate(places) if i]
        starts = [int(place) for place in rng.permutation([places[0] for places in plain[2:]])]
        for (q, keys), start in zip(groups, itertools.chain(starts, itertools.repeat(None)), strict=False):
            lists["piece_query"][-1] += [q] * len(keys)
            lists["piece_key"][-1] += keys
            if start is not None and start - (q - keys[0]) >= low:
                lists["start_query"][-1] += [start] * len(keys)
                lists["start_key"][-1] += [start - (q - key) for key in keys]
    found = {name: _positions(values) for name, values in lists.items()}
    found["predict"] = torch.arange(min(16, length // 3), length - 1).expand(n, -1)
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), found, {"delimiter": delimiter, "word": word})


def _is_word(text: str) -> bool:
    """Whether rarity can be asked of a word: numbers have no rank in the vocabulary, and single letters stand in no order there."""
    return text.isalpha() and len(text) >= SHORTEST


def _rare(
    words: list[list[int]], row: list[int], rank: dict[int, int], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Positions of the two rarest words of the first half, and of two words from its commoner part."""
    half = [places for places in words if places[-1] < len(row) // 2]
    if len(half) < 8:
        return [], []
    # A word is as rare as its rarest piece; ids outside the ranking are the rarest of all.
    order = sorted(half, key=lambda places: max(rank.get(row[i], len(rank)) for i in places))
    common = order[: len(order) // 2]
    picked = [common[i] for i in rng.choice(len(common), 2, replace=False)]
    return [i for places in order[-2:] for i in places], [i for places in picked for i in places]


def _positions(lists: list[list[int]]) -> Tensor:
    """Lists of positions of different lengths as one tensor [example, most], -1 where absent; at least one column."""
    width = max(1, *(len(row) for row in lists))
    return torch.tensor([row + [-1] * (width - len(row)) for row in lists])


__getattr__ = old_names(__name__)
