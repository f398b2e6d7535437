"""The residual stream of a planted model: named blocks in random directions, beside one large constant."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from headatlas.lab.construct.plan import Plan

# The constant's size. A layer norm divides by the length of the stream; with a constant of 32 beside codes of length 1,
# one more code in the stream changes that length by 0.05 %, so that norms act as a fixed factor.
ANCHOR = 32.0
# The length of the signals at the input of the first layer: a token code and a position code or a class flag.
SIGNAL = math.sqrt(2.0)
# Logits between a copied token and the closest other one.
_CERTAIN = 10.0


class Stream:
    """Where each block lies, how to read it behind a norm, and the embeddings that start it off.

    Coordinates: 0 is the constant, 1 makes all embeddings equally long, the others are signals (the plan's blocks);
    `basis` [width, coordinate] is orthonormal and free of the mean, which layer norms take away.
    """

    def __init__(self, plan: Plan, noise: float, generator: torch.Generator) -> None:
        self.plan, self.noise, self.generator = plan, noise, generator
        width = plan.geometry.width
        self.signals = width - 3
        mean = torch.full((width, 1), width**-0.5, dtype=torch.float64)
        random = torch.randn(width, width - 1, generator=generator, dtype=torch.float64)
        self.basis = torch.linalg.qr(torch.cat([mean, random], dim=1))[0][:, 1:]
        # The squared length of an embedding: the constant, a code, flags, features, and room for noise.
        self.length = ANCHOR**2 + self._most_carried() + 4.0 * noise**2
        table = 0.0 if plan.geometry.rotary else 1.0 + noise**2
        # What a norm multiplies the stream by, at the input of the first layer.
        self.norm = math.sqrt(width / (self.length + table))

    def _most_carried(self) -> float:
        """The largest squared length of what a token carries beside the constant; at least a code and a flag."""
        words, blocks = self.plan.words, self.plan.blocks
        flags: Counter[int] = Counter()
        for name, members in words.every_class.items():
            if f"flag:{name}" in blocks:
                flags.update(members)
        size: dict[int, float] = dict(flags)
        for block, feature in words.features.items():
            if block in blocks:
                for token, parts in feature.items():
                    size[token] = size.get(token, 0) + sum(map(abs, parts.values())) ** 2
        return max(2.0, 1.0 + max(size.values(), default=1.0))

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers of this model's seed."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def mixture(self, rows: int) -> Tensor:
        """[row, coordinate] random readers of the signals with values of standard deviation 1; the constant is left out."""
        readers = torch.zeros(rows, 2 + self.signals, dtype=torch.float64)
        readers[:, 2:] = self.randn(rows, self.signals) / SIGNAL
        return readers

    def direction(self, rows: int) -> Tensor:
        """[row, coordinate] random directions among the signals, of length 1 on average."""
        return self.mixture(rows) * SIGNAL / math.sqrt(self.signals)

    def block(self, name: str) -> Tensor:
        """[dimension, coordinate] readers of a block, also the directions to write it."""
        found = self.plan.blocks[name]
        rows = torch.zeros(found.stop - found.start, 2 + self.signals, dtype=torch.float64)
        rows[torch.arange(len(rows)), torch.arange(found.start, found.stop) + 2] = 1.0
        return rows

    def constant(self) -> Tensor:
        """[1, coordinate] a reader that gives 1 everywhere."""
        row = torch.zeros(1, 2 + self.signals, dtype=torch.float64)
        row[0, 0] = 1.0 / ANCHOR
        return row

    def present(self) -> Tensor:
        """[1, coordinate] a reader that gives 1 everywhere but at the first token, where it gives 0."""
        return self.constant() - self.block("flag:first")

    def readers(self, rows: Tensor) -> Tensor:
        """[row, width] weights that read coordinates behind a norm."""
        return (rows @ self.basis.T) / self.norm

    def writers(self, rows: Tensor) -> Tensor:
        """[row, width] weights that write coordinates into the stream."""
        return rows @ self.basis.T

    def embedding(self) -> Tensor:
        """[token, width] codes and class flags beside the constant, each row completed to one and the same length."""
        plan, words = self.plan, self.plan.words
        assert plan.codes is not None
        rows = plan.codes.vectors @ self.block("token")
        for name, members in words.every_class.items():
            if f"flag:{name}" in plan.blocks:
                rows[list(members)] += self.block(f"flag:{name}")
        for name, feature in words.features.items():
            if name in plan.blocks:
                for token, parts in feature.items():
                    amounts = torch.tensor(list(parts.values()), dtype=torch.float64)
                    rows[token] += amounts @ plan.codes.vectors[list(parts)] @ self.block(name)
        if plan.geometry.rotary:
            rows[words.bos] += self.block("flag:first")[0]
        rows = rows + self.noise * self.direction(len(words))
        rows[:, 0] = ANCHOR
        rows[:, 1] = (self.length - (rows**2).sum(1)).clamp(min=0.0).sqrt()
        return self.writers(rows)

    def positions(self) -> Tensor:
        """[position, width] the waves of a learned position table; the first position has a flag instead."""
        plan = self.plan
        angle = torch.arange(plan.context)[:, None] * torch.from_numpy(plan.frequencies)[None]
        waves = torch.stack([angle.cos(), angle.sin()], dim=2).flatten(1) / math.sqrt(len(plan.frequencies))
        rows = waves @ self.block("position")
        rows[0] = self.block("flag:first")[0]
        return self.writers(rows + self.noise * self.direction(plan.context))

    def unembedding(self) -> Tensor:
        """[token, width] reads the code in the block "next"; without any, all tokens are equally likely."""
        assert self.plan.codes is not None
        gain = _CERTAIN / (1.0 - self.plan.coherence)
        return self.readers(gain * self.plan.codes.vectors @ self.block("next"))
