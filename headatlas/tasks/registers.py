"""Two passages in one text, of two registers: what changes in a head when the kind of text changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, next_token_loss, task
from headatlas.tasks._passages import LENGTH, passages, windowed


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """The same kinds of text written in small letters, without a line break."""
    return _built(tokenizer, n, rng, lambda text: " ".join(text.lower().split()))


@task(metric=next_token_loss, version=1, margin=1.0, floor="uniform", second=_second)
def registers(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] 63 tokens of one passage, 64 of a passage of another register; positions["middle"] is where the second begins.

    Control: both passages from one register.
    """
    return _built(tokenizer, n, rng, str)


def _built(tokenizer: Vocabulary, n: int, rng: np.random.Generator, written: Callable[[str], str]) -> Batch:
    """Examples from passages as `written` makes them."""
    length = min(LENGTH, tokenizer.context)
    if length < 48:
        raise UnfitTask(f"registers needs 48 positions; this model has {tokenizer.context}.")
    pools = list(passages().values())
    rows, same = [], []
    for _ in range(n):
        first, other = (pools[i] for i in rng.choice(len(pools), 2, replace=False))
        a, b = (first[i] for i in rng.choice(len(first), 2, replace=False))
        front = windowed(tokenizer, written(a), length, rng)
        rows.append(_joined(front, windowed(tokenizer, written(str(rng.choice(other))), length, rng), length))
        same.append(_joined(front, windowed(tokenizer, written(b), length, rng), length))
    positions = {"middle": torch.full((n,), length // 2), "predict": torch.arange(16, length - 1).expand(n, -1)}
    mask = torch.ones(n, length, dtype=torch.bool)
    return Batch(torch.tensor(rows), mask, positions, control=Batch(torch.tensor(same), mask, positions))


def _joined(first: list[int], second: list[int], length: int) -> list[int]:
    half = length // 2
    return first[:half] + second[half:]
