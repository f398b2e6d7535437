"""Random distinct tokens, repeated: what follows in a later copy can only be known from an earlier one."""

from __future__ import annotations

import numpy as np
import torch

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges, next_token_loss, task
from headatlas.tasks._random_tokens import common_ids, scrambled, usable_ids

LONGEST, SHORTER = 50, 33  # tokens of S, in the task and in its second family
COPIES = 4  # of the task with several (Crosbie & Shutova 2024, Tang et al. 2024)


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Common words in place of any tokens, and fewer of them."""
    return _built(tokenizer, n, rng, common_ids(tokenizer), SHORTER)


def _second_of_four(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Common words in place of any tokens, and fewer of them, four times."""
    return _built(tokenizer, n, rng, common_ids(tokenizer), SHORTER, COPIES)


@task(metric=next_token_loss, version=1, margin=0.5, second=_second)
def repeated(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] S S with S of up to 50 distinct random tokens; loss is counted on the second copy.

    The most and least frequent ids are left out where the vocabulary allows (Olsson et al. 2022). Control: the second
    copy shuffled so that no token keeps its place or its successor. facts["period"] is the length of S.
    """
    return _built(tokenizer, n, rng, usable_ids(tokenizer), LONGEST)


@task(metric=next_token_loss, version=1, margin=0.5, second=_second_of_four)
def repeated_four(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] S S S S with S of up to 50 distinct random tokens; loss is counted on the second to fourth copy.

    As in `repeated`, with four copies (Crosbie & Shutova 2024: 50 tokens; Tang et al. 2024, RazorAttention: 2,500). Positions, a pair
    for each token of a later copy (but the last) and each copy before it: query with echo_key, the same token there, and with
    follow_key, the token behind that. Control: each later copy shuffled so that no token keeps its place or successor.
    """
    return _built(tokenizer, n, rng, usable_ids(tokenizer), LONGEST, COPIES)


def _built(
    tokenizer: Vocabulary, n: int, rng: np.random.Generator, ids: np.ndarray, longest: int, copies: int = 2
) -> Batch:
    """Examples of at most `longest` tokens, and `copies` - 1 times as many again, drawn from `ids`."""
    front, back = edges(tokenizer)
    room = tokenizer.context - len(front) - len(back)
    period = min(longest, room // copies, len(ids) // 2)
    if period < 16:
        raise UnfitTask(
            f"repeated needs {16 * copies} positions and 32 ordinary tokens; this model has {room} and {len(ids)}."
        )
    rows, controls = [], []
    for _ in range(n):
        first = rng.choice(ids, size=period, replace=False)
        others = [first[scrambled(period, rng)] for _ in range(copies - 1)]
        rows.append([*front, *np.tile(first, copies), *back])
        controls.append([*front, *first, *np.concatenate(others), *back])
    start = len(front)
    tokens, mask = torch.tensor(np.array(rows)), torch.ones(n, len(rows[0]), dtype=torch.bool)
    later = torch.arange(start + period, start + copies * period).expand(n, -1)
    positions = {
        "predict": later[:, :-1],  # positions in later copies whose next token is known from earlier ones
        "induction_key": later[:, :-1] - period + 1,  # the token after the copy before of this one
        "second": later,
        "duplicate_key": later - period,
    }
    if copies > 2:
        positions |= _pairs(start, period, copies, n)
    facts = {"period": period, "bos": tokenizer.bos}
    control = Batch(torch.tensor(np.array(controls)), mask, positions=positions, facts=facts)
    return Batch(tokens, mask, positions=positions, facts=facts, control=control)


def _pairs(start: int, period: int, copies: int, n: int) -> dict[str, torch.Tensor]:
    """Each token of a later copy with the same token of every copy before it, and with the one behind that."""
    places = [
        (start + copy * period + i, start + before * period + i)
        for copy in range(1, copies)
        for i in range(period)
        for before in range(copy)
    ]
    query, key = torch.tensor(places).T
    # The last token of the last copy has nothing to predict, and is left out of both.
    inside = query < start + copies * period - 1
    query, key = (x[inside].expand(n, -1) for x in (query, key))
    return {"query": query, "echo_key": key, "follow_key": key + 1}
