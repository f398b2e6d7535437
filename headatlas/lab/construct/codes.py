"""Vectors that stand for tokens: as far apart from each other as a small number of dimensions allows."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Codes:
    """One unit vector a token (the start token has none: attending to it writes nothing).

    vectors: [token, dim]. step: [dim, dim] or None; code @ step is the code of the next member of a sequence.
    coherence: the largest overlap of two different codes; a perfect match is worth 1, a stray one at most this.
    """

    vectors: Tensor
    step: Tensor | None
    coherence: float


@functools.lru_cache(maxsize=64)
def token_codes(size: int, dim: int, sequences: tuple[tuple[int, ...], ...], seed: int) -> Codes:
    """Codes for `size` tokens with the smallest overlaps that gradient descent finds; token 0 gets the zero vector.

    With `sequences`, each one lies on an orbit of one rotation, so that "next member" is a linear map, exactly.
    """
    generator = torch.Generator().manual_seed(seed)
    free = torch.randn(size, dim, generator=generator, dtype=torch.float64)
    angles = torch.rand(dim // 2, generator=generator, dtype=torch.float64) * 2.6 + 0.3
    parameters = [free, angles] if sequences else [free]
    for parameter in parameters:
        parameter.requires_grad_(True)
    steps = 250 if size <= 512 else 80
    optimizer = torch.optim.Adam(parameters, lr=0.03)
    for count in range(steps):
        sharpness = 4.0 * 20.0 ** (count / steps)
        codes = _arranged(free, angles, sequences)[1:]
        overlaps = (codes @ codes.T).masked_fill(torch.eye(size - 1, dtype=torch.bool), -9.0)
        loss = torch.logsumexp(sharpness * overlaps, dim=1).mean() / sharpness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        codes = _arranged(free, angles, sequences)
        overlaps = (codes[1:] @ codes[1:].T).fill_diagonal_(-9.0)
        codes[0] = 0.0
        step = _rotation(angles, dim) if sequences else None
        return Codes(codes.detach(), step, float(overlaps.max()))


def _arranged(free: Tensor, angles: Tensor, sequences: tuple[tuple[int, ...], ...]) -> Tensor:
    """Unit vectors; members of a sequence are turned copies of its first member."""
    codes = normalize(free, dim=1)
    if not sequences:
        return codes
    codes, step = codes.clone(), _rotation(angles, free.shape[1])
    for sequence in sequences:
        turned = [codes[sequence[0]]]
        for _ in sequence[1:]:
            turned.append(turned[-1] @ step)
        codes = codes.index_copy(0, torch.tensor(sequence), torch.stack(turned))
    return codes


def _rotation(angles: Tensor, dim: int) -> Tensor:
    """[dim, dim] turning each pair of dimensions by its angle; an odd last dimension stays."""
    blocks = [torch.stack([torch.stack([a.cos(), a.sin()]), torch.stack([-a.sin(), a.cos()])]) for a in angles.unbind()]
    if dim % 2:
        blocks.append(torch.ones(1, 1, dtype=torch.float64))
    return torch.block_diag(*blocks)
