"""What heads attend to regardless of words: fixed offsets, start and end tokens, pieces of the own word, entropy, likeness.

Clark et al. 2019 (sections 3 and 6), Voita et al. 2019 (positional heads: the most attended place is at one offset in 90% of
queries), Correia et al. 2019 (heads that merge the pieces of a word).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.model.core.view import LayerView
from headatlas.ops.types import Array
from headatlas.treebanks.constituents import jensen_shannon
from headatlas.treebanks.sentences import Sentence
from headatlas.treebanks.words import WordBatch, seen_keys

OFFSETS = tuple(range(-8, 9))
SMOOTHING = 1e-4  # Clark's for entropies: A -> (1 - s) A + s / keys, before logarithms are taken
SMOOTHING_APART = 1e-3  # Clark's for divergences
POSITIONAL = 0.9


@dataclass(frozen=True)
class Surface:
    """[head] each, means over tokens that are pieces of words (queries at start and end tokens left out).

    entropy: in nats. uniform: what it would be if all visible keys got the same. at [head, offset of OFFSETS]: share of
    queries whose most attended key lies there. start, end: mass on the tokens before and after the text. pieces: mass from a
    piece of a split word to its other visible pieces; NaN where no word is split.
    """

    heads: tuple[HeadId, ...]
    entropy: Array
    uniform: float
    at: Array
    start: Array
    end: Array
    pieces: Array

    def positional(self, share: float = POSITIONAL) -> list[tuple[HeadId, int, float]]:
        """(head, offset, share of queries) of heads whose most attended key lies at one offset in at least `share` of queries."""
        best = self.at.argmax(1)
        return [
            (head, OFFSETS[k], float(row[k]))
            for head, k, row in zip(self.heads, best, self.at, strict=True)
            if row[k] >= share
        ]


class SurfaceCounts:
    """Sums over the queries of a stream of batches."""

    def __init__(self, heads: tuple[HeadId, ...], sentences: Sequence[Sentence], *, causal: bool) -> None:
        self.heads = heads
        self.sums = np.zeros((len(heads), 4))  # entropy, start, end, pieces
        self.at = np.zeros((len(heads), len(OFFSETS)))
        self.queries = self.split = self.uniform = 0.0

    def begin(self, part: WordBatch) -> None:
        """Which tokens of a batch are what."""
        self.word, self.mask = part.word, part.batch.mask
        self.inside = part.word >= 0
        length = part.word.shape[1]
        first = self.inside.long().argmax(1, keepdim=True)
        places = torch.arange(length)
        self.before, self.after = self.mask & (places < first), self.mask & ~self.inside & (places > first)
        same = (part.word[:, :, None] == part.word[:, None]) & self.inside[:, :, None]
        self.same = same & ~torch.eye(length, dtype=torch.bool)

    def add(self, place: slice, layer: LayerView) -> None:
        """A layer's sums."""
        pattern = layer.pattern.float()
        queries = self.inside.to(pattern.device)
        seen = seen_keys(layer)
        size = seen.sum(-1).float()  # [example, query]
        smooth = ((1 - SMOOTHING) * pattern + SMOOTHING / size[:, None, :, None]) * seen[:, None]
        entropy = -(smooth * smooth.clamp(min=1e-30).log()).sum(-1)
        same = self.same.to(pattern.device) & seen
        split = queries & same.any(-1)
        masses = [
            entropy * queries[:, None],
            (pattern * self.before.to(pattern.device)[:, None, None]).sum(-1) * queries[:, None],
            (pattern * self.after.to(pattern.device)[:, None, None]).sum(-1) * queries[:, None],
            (pattern * same[:, None]).sum(-1) * split[:, None],
        ]
        self.sums[place] += torch.stack([mass.sum((0, 2)) for mass in masses], -1).double().cpu().numpy()
        offset = pattern.argmax(-1) - torch.arange(layer.n_queries, device=pattern.device)  # [example, head, query]
        for column, k in enumerate(OFFSETS):
            self.at[place, column] += ((offset == k) & queries[:, None]).sum((0, 2)).cpu().numpy()
        if place.start == 0:
            self.queries += float(queries.sum())
            self.split += float(split.sum())
            self.uniform += float((size.log() * queries).sum())

    def result(self) -> Surface:
        """The means."""
        n = max(self.queries, 1.0)
        pieces = self.sums[:, 3] / self.split if self.split else np.full(len(self.heads), np.nan)
        entropy, start, end = (self.sums[:, :3] / n).T
        return Surface(self.heads, entropy, self.uniform / n, self.at / n, start, end, pieces)


@dataclass(frozen=True)
class Likeness:
    """divergence [head, head]: Jensen-Shannon divergence of rows, mean over tokens, in nats: 0 alike, ln 2 nothing shared."""

    heads: tuple[HeadId, ...]
    divergence: Array

    def map(self, seed: int = 0) -> Array:
        """[head, 2] a picture of the divergences by metric scaling (scikit-learn's MDS); only distances mean anything."""
        from sklearn.manifold import MDS

        found = MDS(2, metric="precomputed", n_init=4, init="random", max_iter=1000, eps=1e-10, random_state=seed)
        placed: Array = found.fit_transform(self.divergence)
        return placed


class LikenessSums:
    """Divergences summed over the tokens of a stream of batches; the rows of one batch are kept until its layers are through."""

    def __init__(self, heads: tuple[HeadId, ...], sentences: Sequence[Sentence], *, causal: bool) -> None:
        self.heads = heads
        self.sums, self.tokens = np.zeros((len(heads), len(heads))), 0

    def begin(self, part: WordBatch) -> None:
        """A batch whose rows are to come."""
        self.mask = part.batch.mask
        self.rows: list[Tensor] = []

    def add(self, place: slice, layer: LayerView) -> None:
        """Keep a layer's rows, smoothed over the keys that a query can see."""
        seen = seen_keys(layer)
        size = seen.sum(-1, keepdim=True).clamp(min=1).float()
        smooth = ((1 - SMOOTHING_APART) * layer.pattern.float() + SMOOTHING_APART / size[:, None]) * seen[:, None]
        self.rows.append(smooth.cpu())

    def end(self) -> None:
        """Compare all heads of the batch with each other, one text at a time."""
        rows = torch.cat(self.rows, 1)
        self.rows = []
        for text, valid in zip(rows, self.mask, strict=True):
            kept = text[:, valid][..., valid]  # [head, query, key]
            self.tokens += int(valid.sum())
            for one in range(len(kept)):
                self.sums[one, one + 1 :] += jensen_shannon(kept[one], kept[one + 1 :]).sum(-1).double().numpy()

    def result(self) -> Likeness:
        """The mean over tokens, symmetric."""
        found = (self.sums + self.sums.T) / max(self.tokens, 1)
        return Likeness(self.heads, found)
