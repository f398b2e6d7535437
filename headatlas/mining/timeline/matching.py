"""Which head of a checkpoint is which head of the next one, told by their weights.

Training moves weights and leaves heads at their places, but tools that convert, prune or permute between two checkpoints do
not. A head's weights are kept as a sketch of a few hundred numbers, so that heads can be matched without loading two models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.model.core.head_weights import of_layer
from headatlas.ops.types import Array

SIZE = 256  # numbers of a sketch; cosines between sketches are those of the weights to about 1/16
# By how much the heads of a layer must be likelier each other's than themselves, in sum of cosines, and each that moved
# on its own: far more than chance gives sketches of unlike weights.
CLEAR, LIKE = 0.5, 0.5


def sketches(model: Model) -> Array:
    """[head, SIZE] a count sketch (Charikar et al. 2002) of each head's query, key, value and output weights; NaN where unknown.

    Each weight is added to one of SIZE sums with a sign, both drawn once for its place, which keeps cosines on average.
    """
    found = np.full((len(model.heads), SIZE), np.nan)
    places = {head: number for number, head in enumerate(model.heads)}
    for layer in model.layers:
        if layer.qkv is None:
            continue
        weights = of_layer(layer)
        parts = [weights.W_Q, weights.per_head(weights.W_K), weights.per_head(weights.W_V), weights.W_O]
        sums: Tensor = sum(_sketch(part.float().flatten(1), number) for number, part in enumerate(parts))  # type: ignore[assignment]
        for head in layer.heads:
            found[places[head]] = sums[head.head].double().cpu().numpy()
    return found


def _sketch(rows: Tensor, part: int) -> Tensor:
    """[head, SIZE] of rows [head, weight]; each part of the weights has draws of its own."""
    chance = torch.Generator().manual_seed(part)
    place = torch.randint(SIZE, (rows.shape[1],), generator=chance).to(rows.device)
    sign = (torch.randint(2, (rows.shape[1],), generator=chance) * 2 - 1).to(rows.device)
    return rows.new_zeros(len(rows), SIZE).index_add_(1, place, rows * sign)


def moved(heads: Sequence[HeadId], before: Array, after: Array) -> list[int]:
    """For each head its place in the checkpoint before: its own, unless other heads of its layer are clearly it.

    before, after: sketches [head, SIZE]. The best assignment within a layer (Kuhn 1955) is believed where its cosines sum
    to CLEAR more than those of heads with themselves, and each head that moved is LIKE the one it comes from.
    """
    result = list(range(len(heads)))
    layers: dict[tuple[str, int], list[int]] = {}
    for number, head in enumerate(heads):
        layers.setdefault((head.stack, head.layer), []).append(number)
    for members in layers.values():
        a, b = (_unit(one[members]) for one in (after, before))
        likeness = a @ b.T
        if not np.isfinite(likeness).all():
            continue
        own, (rows, columns) = np.trace(likeness), linear_sum_assignment(-likeness)
        crossed = [(row, column) for row, column in zip(rows, columns, strict=True) if row != column]
        if likeness[rows, columns].sum() - own > CLEAR and all(likeness[pair] > LIKE for pair in crossed):
            for row, column in crossed:
                result[members[row]] = members[column]
    return result


def _unit(x: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def aligned(heads: Sequence[HeadId], sketched: Sequence[Array]) -> list[list[int]]:
    """For each checkpoint, the places at which the heads of the last one stand there: [checkpoint][head]."""
    order = [list(range(len(heads)))]
    for before, after in zip(reversed(sketched[:-1]), reversed(sketched[1:]), strict=True):
        came = moved(heads, before, after)
        order.append([came[place] for place in order[-1]])
    return order[::-1]
