"""alpha-entmax (Peters, Niculae, Martins 2019) with a learned alpha (Correia, Niculae, Martins 2019), by bisection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

HALVINGS = 40
NEAREST = 1e-3  # to alpha = 1, where the formulas divide by zero: softmax is its limit, not a value of it


class _Entmax(torch.autograd.Function):
    """p = [(alpha - 1) z - tau]_+ ^ (1 / (alpha - 1)), with tau such that each row sums to 1."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, alpha: Tensor) -> Tensor:
        x = (alpha - 1) * z
        top = x.amax(-1, keepdim=True)
        # tau lies between where the largest score alone makes 1 and where d equal ones do.
        low, high = top - 1, top - (1 / z.shape[-1]) ** (alpha - 1)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            enough = (x - middle).clamp(min=0).pow(1 / (alpha - 1)).sum(-1, keepdim=True) >= 1
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
        p = (x - low).clamp(min=0).pow(1 / (alpha - 1))
        p = p / p.sum(-1, keepdim=True)
        ctx.save_for_backward(p, alpha)
        return p

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        p, alpha = ctx.saved_tensors
        s = torch.where(p > 0, p.clamp(min=1e-30).pow(2 - alpha), 0.0)
        q = s / s.sum(-1, keepdim=True)
        in_z = s * grad - s * (s * grad).sum(-1, keepdim=True) / s.sum(-1, keepdim=True)
        e = torch.special.xlogy(p, p)
        slope = (p - q) / (alpha - 1) ** 2 - (e - q * e.sum(-1, keepdim=True)) / (alpha - 1)
        in_alpha = (grad * slope).sum(-1, keepdim=True)
        while in_alpha.ndim > alpha.ndim:
            in_alpha = in_alpha.sum(0)
        kept = [i for i, size in enumerate(alpha.shape) if size == 1 and in_alpha.shape[i] != 1]
        return in_z, in_alpha.sum(kept, keepdim=True) if kept else in_alpha


def entmax(z: Tensor, alpha: Tensor) -> Tensor:
    """Weights of scores z [..., key] that sum to 1, exact zeros among them; alpha [..., 1] above 1, 2 is sparsemax.

    Scores of keys that are masked must lie far below the others. alpha is kept NEAREST from 1, where nothing is defined.
    """
    found: Tensor = _Entmax.apply(z, alpha.clamp(min=1 + NEAREST))
    return found
