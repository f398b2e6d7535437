"""Gives a written model knowledge of whole sentences: vectors of tokens whose mean over a sentence says which one it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from headatlas.lab.plantings._writing import vocabulary


def meanings(sentences: Sequence[str], codes: Sequence[Tensor]) -> tuple[Mapping[int, Tensor], float]:
    """(token -> vector [size] of length 1 at most, gain): gain times the mean over a sentence's tokens is its code, nearly (ridge)."""
    rows = [vocabulary().encode(sentence) for sentence in sentences]
    known = sorted({one for row in rows for one in row})
    place = {one: i for i, one in enumerate(known)}
    counts = torch.zeros(len(rows), len(known))
    for i, row in enumerate(rows):
        for one in row:
            counts[i, place[one]] += 1 / len(row)
    ridge = 1e-4 * torch.eye(len(rows))
    found = counts.T @ torch.linalg.solve(counts @ counts.T + ridge, torch.stack(list(codes)))
    gain = float(found.norm(dim=1).max())  # longer vectors would change what the norms divide by
    return {one: found[place[one]] / gain for one in known}, gain
