"""Markov chains, each with transitions of its own: what comes next can be told from what followed before. Edelman et al. 2024."""

from __future__ import annotations

import numpy as np
import torch

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges, next_token_loss, task

LENGTH = 101  # tokens of a chain, as in the paper
SHORTEST = 32
STATES, MORE = 3, 5  # in the task and in its second family
COMMON = 4000  # tokens among which states are drawn


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Five states in place of three."""
    return _built(tokenizer, n, rng, MORE)


@task(metric=next_token_loss, version=1, margin=0.05, second=_second)
def markov(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] 101 states of a Markov chain of three words; loss is counted on the second half.

    Each example has its own words and its own transition matrix, whose rows are drawn from a flat Dirichlet distribution.
    Labels: transitions [example, state, state]; states [example, state], their ids. Control: the same words in random order,
    so that only how often each comes can be known.
    """
    return _built(tokenizer, n, rng, STATES)


def _built(tokenizer: Vocabulary, n: int, rng: np.random.Generator, k: int) -> Batch:
    front, back = edges(tokenizer)
    length = min(LENGTH, tokenizer.context - len(front) - len(back))
    ids = tokenizer.plain_ids()[:COMMON]
    words = [one for one, begins in zip(ids, tokenizer.word_starts(ids), strict=True) if begins]
    pool = np.array(words if len(words) >= 4 * k else ids)
    if length < SHORTEST or len(pool) < k:
        raise UnfitTask(f"markov needs {SHORTEST} positions and {k} words; this model has {length} and {len(pool)}.")
    rows, mixed, matrices, states = [], [], [], []
    for _ in range(n):
        matrix = rng.dirichlet(np.ones(k), size=k)
        reach, chance = matrix.cumsum(1), rng.random(length)
        at_rest = np.linalg.matrix_power(matrix, 64)[0].cumsum()
        chain = [min(int((at_rest < chance[0]).sum()), k - 1)]
        for one in chance[1:]:
            chain.append(min(int((reach[chain[-1]] < one).sum()), k - 1))  # rounding may leave the last sum below 1
        names = rng.choice(pool, size=k, replace=False)
        rows.append([*front, *names[chain], *back])
        mixed.append([*front, *names[rng.permutation(chain)], *back])
        matrices.append(matrix)
        states.append(names)
    start = len(front)
    mask = torch.ones(n, len(rows[0]), dtype=torch.bool)
    positions = {"predict": torch.arange(start + length // 2, start + length - 1).expand(n, -1)}
    labels = {"transitions": torch.tensor(np.array(matrices)), "states": torch.tensor(np.array(states))}
    control = Batch(torch.tensor(np.array(mixed)), mask, positions)
    return Batch(torch.tensor(np.array(rows)), mask, positions, labels=labels, facts={"states": k}, control=control)
