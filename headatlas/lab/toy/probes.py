"""What toys are measured by: losses, and attention on wanted keys, read from the model's own eager attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from headatlas.lab.construct import targets


def next_token_loss(model: Any, tokens: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of each next token of `tokens` [example, pos]."""
    logits = model(tokens).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """[example, pos - 1] loss of each next token."""
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]


def matching(tokens: Tensor) -> Tensor:
    """[example, query, key] the keys an induction head attends to: those whose predecessor equals the current token."""
    before = torch.full_like(tokens, -1)
    before[:, 1:] = tokens[:, :-1]
    return targets.same(tokens, before) & (targets.distance(tokens) > 0)


def back(tokens: Tensor, offset: int = 1) -> Tensor:
    """[example, query, key] the key `offset` tokens back."""
    return targets.distance(tokens) == offset


def shares(pattern: Tensor, wanted: Tensor) -> list[float]:
    """Each head's mean share of attention [example, head, query, key] on wanted keys, over queries that have one."""
    found = (pattern * wanted[:, None]).sum(-1).transpose(0, 1)[:, wanted.any(-1)]
    return [float(share) for share in found.mean(1)]


def by_head(name: str, layer: int, values: list[float]) -> dict[str, float]:
    """A number for each head of a layer under "name layer.head", and the largest under the name alone."""
    return {name: max(values), **{f"{name} {layer}.{head}": value for head, value in enumerate(values)}}
