"""Directions in the space of heads' outputs or of the residual stream, for steering and for projecting out.

Each function returns unit directions (difference_of_means: the difference itself) by head, or by layer for the residual
stream, ready for `Add` and `Project`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch
from scipy import optimize, special
from torch import Tensor

from headatlas.edits.base import Heads, Layers, OnHeads, Where, named_on, token_stack
from headatlas.edits.collect import collect
from headatlas.edits.move import Key
from headatlas.errors import BadInput
from headatlas.heads import HeadId

if TYPE_CHECKING:
    from headatlas.model import Model
    from headatlas.task import Batch

Found = Mapping[Key, Tensor]


def difference_of_means(
    model: Model, heads: Heads | Layers, batch: Batch, labels: Tensor, **where: Unpack[Where]
) -> Found:
    """Mean over examples labelled 1 minus mean over those labelled 0, not scaled to length one.

    labels [example]; where["positions"]: the tokens that are averaged within an example, the last real one if left out.
    """
    positive = two_classes(labels, len(batch))
    return _by_key(model, heads, batch, lambda x: x[positive].mean(0) - x[~positive].mean(0), where)


def probe(
    model: Model, heads: Heads | Layers, batch: Batch, labels: Tensor, strength: float = 1.0, **where: Unpack[Where]
) -> Found:
    """The weights of a logistic regression that tells label 1 from 0; `strength` of its ridge penalty."""
    positive = two_classes(labels, len(batch))
    return _by_key(model, heads, batch, lambda x: _unit(_logistic(x, positive, strength)), where)


def principal(model: Model, heads: Heads | Layers, batch: Batch, k: int = 1, **where: Unpack[Where]) -> Found:
    """The k directions [k, width] along which examples differ most (PCA)."""
    if not 1 <= k < len(batch):
        raise BadInput(f"{k} principal directions cannot be had of {len(batch)} examples.", "Give more examples.")
    return _by_key(model, heads, batch, lambda x: torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:k], where)


def random(like: Found, seed: int = 0) -> Found:
    """Random directions of the same lengths: the control for any of the others."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        key: torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value.device)
        for key, value in like.items()
    }
    return {key: _unit(value) * like[key].norm(dim=-1, keepdim=True) for key, value in drawn.items()}


def two_classes(labels: Tensor, n: int) -> Tensor:
    """[example] bool; raises BadInput unless labels are 0 and 1, both present."""
    if len(labels) != n:
        raise BadInput(f"There are {len(labels)} labels for {n} examples.")
    if sorted(set(labels.tolist())) != [0, 1]:
        raise BadInput(f"Labels must be 0 and 1, both present; got {sorted(set(labels.tolist()))}.")
    return labels.cpu() == 1


def _by_key(
    model: Model, heads: Heads | Layers, batch: Batch, find: Callable[[Tensor], Tensor], where: Where
) -> dict[Key, Tensor]:
    """`find` on each head's [example, width], averaged over the chosen tokens of an example."""
    what = OnHeads(named_on(model, heads, where), **where)
    if what.component == "pattern":
        raise BadInput("Attention patterns have no directions.", "Choose q, k, v, z or residual.")
    weights = {
        stack: _averaging(batch.side(stack), what.positions)
        for stack in {token_stack(stack, what.component) for stack, _ in what.layers}
    }
    found: dict[Key, Tensor] = {}
    for key, x in collect(model, batch, what).items():
        weight = weights[token_stack(key[0], what.component)]
        averaged = torch.einsum("et,ethd->ehd", weight, x.float().cpu())
        size = model.layer(key[1], key[0]).n_heads // x.shape[2]
        if what.component == "residual":
            found[key] = find(averaged[:, 0])
        for head in what.heads:
            if (head.stack, head.layer) == key:
                found[HeadId(*head)] = find(averaged[:, head.head // size])
    return found


def _averaging(batch: Batch, positions: Tensor | None) -> Tensor:
    """[example, token] weights that average over the tokens at positions, else the last real one. Raises BadInput."""
    everywhere = torch.arange(batch.tokens.shape[1])[None]
    last = torch.where(batch.mask, everywhere, -1).amax(1, keepdim=True)
    chosen = (positions if positions is not None else last).cpu().expand(len(batch), -1)
    weight = ((everywhere[:, :, None] == chosen[:, None, :]).any(-1) & batch.mask.cpu()).float()
    if bool((weight.sum(1) == 0).any()):
        raise BadInput("An example has no token at the positions given.")
    return weight / weight.sum(1, keepdim=True)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


def _logistic(x: Tensor, positive: Tensor, strength: float) -> Tensor:
    """Weights of a ridge-penalised logistic regression on standardised features, in the features' own units."""
    centre, spread = x.mean(0), x.std(0).clamp(min=1e-6)
    data = ((x - centre) / spread).double().numpy()
    sign = np.where(positive.numpy(), 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (data @ weights[1:] + weights[0])
        pull = -sign * special.expit(-margin)
        penalty = np.concatenate([[0.0], strength * weights[1:]])
        value = float(np.logaddexp(0, -margin).sum() + 0.5 * penalty @ weights)
        return value, np.concatenate([[pull.sum()], data.T @ pull]) + penalty

    result = optimize.minimize(loss, np.zeros(data.shape[1] + 1), jac=True, method="L-BFGS-B")
    return torch.from_numpy(result.x[1:]).float() / spread
