"""Random distinct tokens, repeated once: what follows in the second copy can only be known from the first."""

from __future__ import annotations

import numpy as np
import torch

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges, next_token_loss, task

COMMON = 4000  # tokens among which the second family has its words
LONGEST, SHORTER = 50, 33  # tokens of S, in the task and in its second family


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Common words in place of any tokens, and fewer of them."""
    ids = tokenizer.plain_ids()[:COMMON]
    starts = [one for one, begins in zip(ids, tokenizer.word_starts(ids), strict=True) if begins]
    # A vocabulary with hardly any words has no other tokens to offer than the task has itself.
    return _built(
        tokenizer, n, rng, np.array(starts) if len(starts) >= 4 * SHORTER else _usable_ids(tokenizer), SHORTER
    )


@task(metric=next_token_loss, version=1, margin=0.5, second=_second)
def repeated(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] S S with S of up to 50 distinct random tokens; loss is counted on the second copy.

    The most and least frequent ids are left out where the vocabulary allows (Olsson et al. 2022). Control: the second
    copy shuffled so that no token keeps its place or its successor. facts["period"] is the length of S.
    """
    return _built(tokenizer, n, rng, _usable_ids(tokenizer), LONGEST)


def _built(tokenizer: Vocabulary, n: int, rng: np.random.Generator, ids: np.ndarray, longest: int) -> Batch:
    """Examples of at most `longest` tokens, and as many again, drawn from `ids`."""
    front, back = edges(tokenizer)
    room = tokenizer.context - len(front) - len(back)
    period = min(longest, room // 2, len(ids) // 2)
    if period < 16:
        raise UnfitTask(f"repeated needs 32 positions and 32 ordinary tokens; this model has {room} and {len(ids)}.")
    rows, controls = [], []
    for _ in range(n):
        first = rng.choice(ids, size=period, replace=False)
        rows.append([*front, *first, *first, *back])
        controls.append([*front, *first, *first[_scrambled(period, rng)], *back])
    start = len(front)
    tokens, mask = torch.tensor(np.array(rows)), torch.ones(n, len(rows[0]), dtype=torch.bool)
    second = torch.arange(start + period, start + 2 * period).expand(n, -1)
    positions = {
        "predict": second[:, :-1],  # positions in the second copy whose next token is known from the first
        "induction_key": second[:, :-1] - period + 1,  # the token after the first copy of this one
        "second": second,
        "duplicate_key": second - period,
    }
    facts = {"period": period, "bos": tokenizer.bos}
    control = Batch(torch.tensor(np.array(controls)), mask, positions=positions, facts=facts)
    return Batch(tokens, mask, positions=positions, facts=facts, control=control)


def _usable_ids(tokenizer: Vocabulary) -> np.ndarray:
    """Ordinary token ids without the most and the least frequent, where the vocabulary is large enough."""
    ids = np.array(tokenizer.plain_ids())
    if len(ids) < 1000:
        return ids
    return ids[len(ids) // 50 : min(len(ids) * 3 // 4, 40_000)]


def _scrambled(length: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation that keeps no element in its place and no element next to its old successor."""
    while True:
        order = rng.permutation(length)
        if not (order == np.arange(length)).any() and not (np.diff(order) == 1).any():
            return order
