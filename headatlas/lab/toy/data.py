"""Endless toy texts on which a small transformer must learn to attend back: repeated words, and unknown Markov chains."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

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


def transitions(n: int, vocab: int, generator: torch.Generator, *, doubly: bool = False) -> Tensor:
    """[n, state, next state] matrices with rows even over all distributions; doubly: columns sum to 1 too.

    Doubly stochastic ones have the even distribution as their resting one, so that counting states tells nothing.
    """
    found = -torch.rand(n, vocab, vocab, generator=generator).log()
    for _ in range(50 if doubly else 0):  # Sinkhorn's iteration
        found = found / found.sum(-2, keepdim=True)
        found = found / found.sum(-1, keepdim=True)
    return found / found.sum(-1, keepdim=True)


def markov_chains(n: int, length: int, vocab: int, generator: torch.Generator) -> Tensor:
    """[n, length] chains, each with its own `transitions`, started at rest.

    In-context learning of Markov chains, Edelman et al. 2024.
    """
    return chains_of(transitions(n, vocab, generator), length, generator)


def chains_of(rows: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """[n, length] a chain for each matrix [n, state, next state], started at rest."""
    n = len(rows)
    resting = torch.matrix_power(rows, 64)[:, 0]
    chains = torch.zeros(n, length, dtype=torch.long)
    chance = torch.rand(n, length, generator=generator)
    chains[:, 0] = _drawn(resting, chance[:, 0])
    each = torch.arange(n)
    for step in range(1, length):
        chains[:, step] = _drawn(rows[each, chains[:, step - 1]], chance[:, step])
    return chains


def chains_of_order(tables: Tensor, order: int, length: int, generator: torch.Generator) -> Tensor:
    """[n, length] chains whose states hang on the `order` before them, by tables [n, context, next state].

    The first `order` states are even. Contexts are numbered as `contexts` does.
    """
    n, states = len(tables), tables.shape[-1]
    chains = torch.randint(states, (n, length), generator=generator)
    chance, each = torch.rand(n, length, generator=generator), torch.arange(n)
    for place in range(order, length):
        rows = tables[each, contexts(chains[:, place - order : place], states, order)[:, -1]]
        chains[:, place] = _drawn(rows, chance[:, place])
    return chains


def contexts(chains: Tensor, states: int, order: int) -> Tensor:
    """[n, length] the number of the last `order` states at each place, the latest as the last digit; -1 where there are fewer."""
    places = states ** torch.arange(order - 1, -1, -1)
    found = torch.full_like(chains, -1)
    found[:, order - 1 :] = (chains.unfold(1, order, 1) * places).sum(-1)
    return found


def followers(chains: Tensor, states: int, order: int) -> Tensor:
    """[n, query, key] the keys that followed the query's last `order` states earlier in the chain, the query itself included."""
    here = contexts(chains, states, order)
    before = torch.full_like(here, -2)  # the same as no context
    before[:, 1:] = here[:, :-1]
    found: Tensor = (here[:, :, None] == before[:, None]) & (here[:, :, None] >= 0)
    return found.tril()


def counting_after(chains: Tensor, states: int, order: int) -> Tensor:
    """[n, length - 1, state] what counting what followed the last `order` states predicts at each place; counts start at one."""
    counts = 1 + followers(chains, states, order).float() @ one_hot(chains, states).float()
    return (counts / counts.sum(-1, keepdim=True))[:, :-1]


def _drawn(weights: Tensor, chance: Tensor) -> Tensor:
    """One index a row by its weights, for uniform numbers `chance`."""
    return (weights.cumsum(-1) < chance[:, None]).sum(-1).clamp(max=weights.shape[1] - 1)


def counting(chains: Tensor, vocab: int) -> dict[str, Tensor]:
    """[n, length - 1, state] what three ways of counting predict at each place: evenly, by states, by what followed this state.

    Counts start at one, which is the best guess for chains whose rows are even over all distributions (the second
    only where rows were all alike).
    """
    seen = one_hot(chains, vocab).float()
    unigram = 1 + seen.cumsum(1)[:, :-1]
    pairs = seen[:, :-1, :, None] * seen[:, 1:, None, :]  # [n, place, state, next state] the step from this place
    before = torch.cat(
        [torch.zeros_like(pairs[:, :1]), pairs.cumsum(1)[:, :-1]], dim=1
    )  # steps that end here or earlier
    bigram = 1 + (before * seen[:, :-1, :, None]).sum(2)
    found = {"uniform": torch.ones_like(unigram), "unigram": unigram, "bigram": bigram}
    return {name: counts / counts.sum(-1, keepdim=True) for name, counts in found.items()}


def counting_losses(chains: Tensor, vocab: int) -> dict[str, float]:
    """Mean loss (nats) of the ways of `counting`."""
    return {
        name: float(-guess.gather(-1, chains[:, 1:, None]).log().mean())
        for name, guess in counting(chains, vocab).items()
    }
