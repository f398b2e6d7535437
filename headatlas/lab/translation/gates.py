"""Hard concrete gates of heads (Louizos et al. 2018), by which Voita et al. 2019 prune them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BETA, LOW, HIGH = 0.33, -0.1, 1.1  # temperature and stretch, as in the published code
EDGE = 1e-6


def sampled(log_a: Tensor, generator: torch.Generator) -> Tensor:
    """Gates from 0 to 1 with noise, as in training; exactly 0 and 1 both happen."""
    u = torch.rand(log_a.shape, generator=generator).clamp(EDGE, 1 - EDGE)
    s = torch.sigmoid((u.log() - (1 - u).log() + log_a) / BETA)
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def settled(log_a: Tensor) -> Tensor:
    """Gates without noise, as they are used afterwards."""
    return (torch.sigmoid(log_a) * (HIGH - LOW) + LOW).clamp(0, 1)


def open_probability(log_a: Tensor) -> Tensor:
    """How likely each gate is not 0: what the penalty counts. 0.688 at log_a = 0."""
    return torch.sigmoid(log_a - BETA * math.log(-LOW / HIGH))
