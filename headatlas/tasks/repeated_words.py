"""Random tokens around words of several tokens, given again: which word comes next? Feucht et al. 2025."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges, halves, next_token_loss
from headatlas.tasks._prompts import FIRST, lists, pick, shuffled
from headatlas.tasks._random_tokens import common_ids, scrambled, usable_ids
from headatlas.tasks._words_in_tokens import LEAST, SIZES, common_words_in_tokens, names_in_tokens

WORDS = 3  # words in a text, and as many runs of random tokens
APART, LENGTH = 4, 54  # random tokens before each of them; tokens of a copy, so that words of five tokens have room
Spans = Sequence[tuple[str, Sequence[int]]]


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] S newline S: S is 54 random tokens, among them three words of two to five tokens each and as many runs of random ones.

    Words are names of people, places and things; random tokens are those of `repeated`. Words and runs of a text have the same number
    of tokens and come in random order, each after four random tokens. Loss is counted on the words' tokens in the second S. Positions:
    word_query (before each word in the second S), word_first and word_last (of the word in the first S), run_query, run_first and run_last (the
    same of the runs), rest (the other random tokens of the second S). Control: the random tokens of the second S in another order, none in
    its place or before its successor.
    """
    words = (names_in_tokens if family == FIRST else common_words_in_tokens)(tokenizer, half)
    ids = usable_ids(tokenizer) if family == FIRST else common_ids(tokenizer)
    front, back = edges(tokenizer)
    line = tokenizer.encode("\n")
    room = tokenizer.context - len(front) - len(back) - len(line)
    if not words or len(ids) < 2 * LENGTH or room < 2 * LENGTH:
        raise UnfitTask(
            f"repeated-words needs {LEAST} names of {SIZES[0]} tokens (or of any other number up to {SIZES[-1]}), {2 * LENGTH} ordinary"
            f" tokens and as many positions; this model has {'them' if words else 'no such names'}, {len(ids)} and {room}."
        )
    first, second = len(front), len(front) + LENGTH + len(line)  # where the copies begin
    rows, controls = [], []
    places: dict[str, list[list[int]]] = {}
    for number in range(n):
        alike = list(words.values())[number % len(words)]
        size = len(alike[0])
        chosen = pick(alike, rng, WORDS)
        free = ids[~np.isin(ids, [one for word in chosen for one in word])]
        drawn = rng.choice(free, size=LENGTH - WORDS * size, replace=False).tolist()
        runs, plain = [drawn[i * size : (i + 1) * size] for i in range(WORDS)], drawn[WORDS * size :]
        spans = shuffled([("word", word) for word in chosen] + [("run", run) for run in runs], rng)
        copy = _laid_out(plain, spans)
        mixed = _laid_out([plain[i] for i in scrambled(len(plain), rng)], spans)
        rows.append([*front, *copy, *line, *copy, *back])
        controls.append([*front, *copy, *line, *mixed, *back])
        for what, found in _places([what for what, _ in spans], size, first, second).items():
            places.setdefault(what, []).append(found)
    positions = {name: lists(values) for name, values in places.items()}
    mask = torch.ones(n, len(rows[0]), dtype=torch.bool)
    facts = {"half": half, "bos": tokenizer.bos}
    control = Batch(torch.tensor(controls), mask, positions, facts=facts)
    return Batch(torch.tensor(rows), mask, positions, facts=facts, control=control)


def _laid_out(plain: Sequence[int], spans: Spans) -> list[int]:
    """Random tokens, and after each APART of them a word or a run; what is left of them at the end."""
    row: list[int] = []
    for i, (_, span) in enumerate(spans):
        row += [*plain[i * APART : (i + 1) * APART], *span]
    return [*row, *plain[len(spans) * APART :]]


def _places(kinds: Sequence[str], size: int, first: int, second: int) -> dict[str, list[int]]:
    """Positions in a text whose copies begin at `first` and `second` and hold words and runs of `size` tokens in this order."""
    found: dict[str, list[int]] = {"predict": [], "rest": []}
    taken: set[int] = set()
    for i, kind in enumerate(kinds):
        start = (i + 1) * APART + i * size
        for what, place in (
            ("query", second + start - 1),
            ("first", first + start),
            ("last", first + start + size - 1),
        ):
            found.setdefault(f"{kind}_{what}", []).append(place)
        taken |= set(range(start - 1, start + size))
        if kind == "word":
            found["predict"] += range(second + start - 1, second + start + size - 1)
    found["rest"] += [second + i for i in range(LENGTH) if i not in taken]
    return found


repeated_words, repeated_words_held_out = halves(
    "repeated-words",
    _build,
    metric=next_token_loss,
    version=1,
    margin=0.5,
    second="Words in small letters in place of names, among common words in place of any tokens.",
)
