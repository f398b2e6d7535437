"""Endless toy texts on which a small transformer must learn to attend back: repeated words, and unknown Markov chains."""

from __future__ import annotations

import torch
from torch import Tensor

_SHORTEST = 8


def repeated_tokens(n: int, length: int, vocab: int, generator: torch.Generator) -> Tensor:
    """[n, length] token 0, then random tokens repeated again and again, with another period in each row.

    Periods run from 8 to half the length: what comes next is known from the second round on, but not from a fixed
    distance, so that only a head that matches contents can do it.
    """
    period = torch.randint(_SHORTEST, length // 2 + 1, (n, 1), generator=generator)
    words = torch.randint(1, vocab, (n, length // 2), generator=generator)
    text = words.gather(1, torch.arange(length - 1)[None] % period)
    return torch.cat([torch.zeros(n, 1, dtype=torch.long), text], dim=1)


def markov_chains(n: int, length: int, vocab: int, generator: torch.Generator) -> Tensor:
    """[n, length] chains, each with its own transition matrix (rows even over all distributions), started at rest.

    In-context learning of Markov chains, Edelman et al. 2024.
    """
    rows = -torch.rand(n, vocab, vocab, generator=generator).log()
    rows = rows / rows.sum(-1, keepdim=True)
    resting = torch.matrix_power(rows, 64)[:, 0]
    chains = torch.zeros(n, length, dtype=torch.long)
    chance = torch.rand(n, length, generator=generator)
    chains[:, 0] = _drawn(resting, chance[:, 0])
    each = torch.arange(n)
    for step in range(1, length):
        chains[:, step] = _drawn(rows[each, chains[:, step - 1]], chance[:, step])
    return chains


def _drawn(weights: Tensor, chance: Tensor) -> Tensor:
    """One index a row by its weights, for uniform numbers `chance`."""
    return (weights.cumsum(-1) < chance[:, None]).sum(-1).clamp(max=weights.shape[1] - 1)


def counting_losses(chains: Tensor, vocab: int) -> dict[str, float]:
    """Mean loss of three ways to predict a chain: evenly, by how often each state came, by what followed this state.

    Counts start at one, which is the best guess for chains whose rows are even over all distributions (the second
    only where rows were all alike).
    """
    n, length = chains.shape
    each = torch.arange(n)
    seen, followed = torch.ones(n, vocab), torch.ones(n, vocab, vocab)
    unigram, bigram = torch.zeros(n, length - 1), torch.zeros(n, length - 1)
    for step in range(length - 1):
        here, following = chains[:, step], chains[:, step + 1]
        seen[each, here] += 1
        unigram[:, step] = -(seen[each, following] / seen.sum(-1)).log()
        row = followed[each, here]
        bigram[:, step] = -(row[each, following] / row.sum(-1)).log()
        followed[each, here, following] += 1
    return {
        "uniform": float(torch.tensor(float(vocab)).log()),
        "unigram": float(unigram.mean()),
        "bigram": float(bigram.mean()),
    }
