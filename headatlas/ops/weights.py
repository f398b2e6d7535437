"""Maths of a head's two circuits, what it looks for and what it writes, without ever multiplying the matrices out.

A circuit is a product of thin factors, M = left @ right with left [..., rows, rank] and right [..., rank, columns], where
rows and columns are model dimensions or tokens. Its norm, singular vectors and eigenvalues come from rank x rank matrices.
Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CHUNK = 8192  # tokens of the vocabulary whose logits exist at once


@dataclass(frozen=True, eq=False)
class Factored:
    """A product of thin factors: left [..., rows, rank], right [..., rank, columns]; leading dimensions are heads."""

    left: Tensor
    right: Tensor

    @property
    def T(self) -> Factored:
        """The transpose."""
        return Factored(self.right.mT, self.left.mT)

    def dense(self) -> Tensor:
        """The product itself, [..., rows, columns]; for small models and tests."""
        return self.left @ self.right

    def norm(self) -> Tensor:
        """Frobenius norm, [...]."""
        return (_triangle(self.left) @ _triangle(self.right.mT).mT).norm(dim=(-2, -1))

    def eigenvalues(self) -> Tensor:
        """The eigenvalues [..., rank] (complex) of a square product that may differ from zero.

        Those of left @ right are those of right @ left, rank x rank; all others are zero.
        """
        around = (self.right @ self.left).double()
        # By NumPy, which refuses NaN; torch 2.13 on a CPU ends the process.
        return torch.from_numpy(np.linalg.eigvals(around.cpu().numpy()).astype(np.complex128))

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """(U [..., rows, rank], sizes [..., rank] falling, V [..., columns, rank]): the product is U diag(sizes) V^T."""
        first, upper = torch.linalg.qr(self.left)
        second, lower = torch.linalg.qr(self.right.mT)
        u, sizes, v = torch.linalg.svd(upper @ lower.mT)
        return first @ u, sizes, second @ v.mT


def _triangle(x: Tensor) -> Tensor:
    """R of x = Q R, [..., rank, rank]: |R y| = |x y| for all y."""
    found: Tensor = torch.linalg.qr(x, mode="r").R
    return found


def copying(eigenvalues: Tensor) -> Tensor:
    """sum(eigenvalues) / sum(|eigenvalues|), [...] in [-1, 1]: 1 copies, 0 neither, -1 suppresses what it reads.

    eigenvalues [..., rank] of the full OV circuit from tokens to tokens. Elhage et al. 2021. NaN for a head that writes
    nothing.
    """
    return eigenvalues.sum(-1).real / eigenvalues.abs().sum(-1)


def compositions(writes: Factored, reads: Factored, rotation: Tensor | None = None) -> Tensor:
    """How much of what first heads write is read by second heads: |W R| / (|W| |R|), [first, second].

    writes [first, ...]: their OV circuits. reads [second, ...]: QK (for queries), its transpose (for keys) or OV (for
    values). rotation [d_model, d_model]: turns the stream in between; a random one gives the chance level, whose root
    mean square is d_model**-0.5 whatever the matrices. Elhage et al. 2021.
    """
    first = _triangle(writes.left) @ writes.right  # as long as the writes for whatever comes after
    second = reads.left @ _triangle(reads.right.mT).mT
    sizes = first.norm(dim=(-2, -1))[:, None] * second.norm(dim=(-2, -1))
    turned = first if rotation is None else first @ rotation
    rank, other = first.shape[1], second.shape[2]
    product = turned.flatten(0, 1) @ second.transpose(0, 1).flatten(1)  # [first x rank, second x rank]
    return product.view(len(first), rank, len(second), other).square().sum((1, 3)).sqrt() / sizes


def random_rotation(size: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix [size, size] drawn uniformly (Haar)."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return (q * r.diagonal().sign()).float()


def pieces(n: int, size: int = CHUNK) -> Iterator[slice]:
    """Slices of at most `size` that cover 0 to n."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def ranks(
    vectors: Tensor, readout: Tensor, bias: Tensor | None, targets: Tensor, size: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """(how many tokens `vectors` raise more than each target, how many they lower more), whole numbers [..., target].

    vectors [..., d], readout [d, token], bias [token] or None, targets [..., target]: columns of readout. Raised is counted
    on vectors @ readout + bias, lowered on -vectors @ readout + bias. Ties count as more, so that a vector of zeros puts
    every token last.
    """
    own = torch.einsum("...d,...td->...t", vectors, readout.T[targets])
    found = []
    for sign in (1.0, -1.0):
        found.append((sign * own if bias is None else sign * own + bias[targets], torch.zeros_like(targets)))
    for part in pieces(readout.shape[1], size):
        product = vectors @ readout[:, part]
        inside = (targets >= part.start) & (targets < part.stop)
        column = (targets - part.start).clamp(0, product.shape[-1] - 1)
        for sign, (chosen, count) in zip((1.0, -1.0), found, strict=True):
            logits = sign * product if bias is None else sign * product + bias[part]
            for i in range(targets.shape[-1]):
                more = logits >= chosen[..., i : i + 1]
                # A target is not above itself, however its logit was rounded.
                itself = more.gather(-1, column[..., i : i + 1])[..., 0] & inside[..., i]
                count[..., i] += more.sum(-1) - itself.long()
    return found[0][1], found[1][1]


def highest(
    vectors: Tensor, readout: Tensor, bias: Tensor | None, targets: Tensor, k: int, size: int = CHUNK
) -> Tensor:
    """[row] whether `vectors` raise fewer than k other tokens as much as the target or more: `ranks(...)[0] < k` at less cost.

    vectors [row, d], targets [row]: columns of readout [d, token]; bias [token] or None. Most targets are out once a first
    part of the tokens holds k above them, and are not asked about the rest.
    """
    own = torch.einsum("rd,rd->r", vectors, readout.T[targets])
    own = own if bias is None else own + bias[targets]
    above, start, n = torch.zeros_like(targets), 0, readout.shape[1]
    while start < n:
        rows = (above < k).nonzero()[:, 0]
        if not len(rows):
            break
        part = slice(start, min(start + (size if start else max(1, size // 8)), n))
        logits, column = vectors[rows] @ readout[:, part], targets[rows] - start
        more = (logits if bias is None else logits + bias[part]) >= own[rows, None]
        inside = (column >= 0) & (column < logits.shape[1])
        # A target is not above itself, however its logit was rounded.
        itself = more.gather(1, column.clamp(0, logits.shape[1] - 1)[:, None])[:, 0] & inside
        above[rows] += more.sum(1) - itself.long()
        start = part.stop
    return above < k


def top(
    vectors: Tensor, readout: Tensor, k: int, *, bias: Tensor | None = None, size: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """(logits, columns) [..., k] of the k highest of vectors [..., d] @ readout [d, token], a part of the tokens at a time."""
    values: Tensor | None = None
    columns: Tensor | None = None
    for part in pieces(readout.shape[1], size):
        logits = vectors @ readout[:, part]
        logits = logits if bias is None else logits + bias[part]
        best, place = logits.topk(min(k, logits.shape[-1]), dim=-1)
        place = place + part.start
        if values is not None and columns is not None:
            best, place = torch.cat([values, best], -1), torch.cat([columns, place], -1)
            best, order = best.topk(min(k, best.shape[-1]), dim=-1)
            place = place.gather(-1, order)
        values, columns = best, place
    assert values is not None
    assert columns is not None
    return values, columns
