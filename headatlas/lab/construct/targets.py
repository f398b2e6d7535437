"""Where a head of a kind is meant to attend, said in terms of tokens and positions alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def causal(tokens: Tensor) -> Tensor:
    """[example, query, key] True for keys at or before the query."""
    length = tokens.shape[1]
    return torch.ones(length, length, dtype=torch.bool).tril().expand(len(tokens), -1, -1)


def distance(tokens: Tensor) -> Tensor:
    """[example, query, key] how many tokens the key lies back; negative for the future."""
    steps = torch.arange(tokens.shape[1])
    return (steps[:, None] - steps[None, :]).expand(len(tokens), -1, -1)


def back(tokens: Tensor, offset: int) -> Tensor:
    """The key `offset` tokens back, where that is not the first token of the text."""
    found = distance(tokens) == offset
    found = found.clone()
    found[:, :, 0] = False
    return found


def first(tokens: Tensor) -> Tensor:
    """The first token of the text, for all later queries."""
    found = torch.zeros(len(tokens), tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    found[:, 1:, 0] = True
    return found


def same(queries: Tensor, keys: Tensor) -> Tensor:
    """Earlier or current keys whose value equals the query's; values below 0 equal nothing."""
    equal = (queries[:, :, None] == keys[:, None, :]) & (keys >= 0)[:, None, :]
    return equal & causal(queries)


def before(tokens: Tensor) -> Tensor:
    """The token one back, -1 for the first token and for the one behind it, which has only the start token before it."""
    shifted = torch.full_like(tokens, -1)
    shifted[:, 2:] = tokens[:, 1:-1]
    return shifted


def follower(tokens: Tensor) -> Tensor:
    """What an induction head predicts: the token after the last earlier occurrence of this one, -1 where there is none."""
    earlier = same(tokens, before(tokens))
    place = torch.where(earlier, torch.arange(tokens.shape[1]), -1).max(-1).values
    return torch.where(place >= 0, tokens.gather(1, place.clamp(min=0)), -1)


def member(tokens: Tensor, ids: Iterable[int]) -> Tensor:
    """[example, pos] whether the token is one of `ids`."""
    return torch.isin(tokens, torch.tensor(sorted(ids)))


def keys_in(tokens: Tensor, chosen: Tensor) -> Tensor:
    """Earlier or current keys at the chosen positions."""
    return chosen[:, None, :] & causal(tokens)
