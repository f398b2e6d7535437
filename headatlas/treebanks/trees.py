"""Whole trees out of a head's attention: the maximum spanning arborescence of Htut et al. 2019 (MST).

The gold root is given. Edges are weighted by attention (not its logarithm), either from the attending word to the attended
("parent attends", the paper's orientation) or the other way round ("child attends"). The score is UUAS: the share of gold
edges found, whatever their direction. Chance is the chain of neighbours, the same for all heads. A causal model's maps are
made symmetric first, A + A^T, since no directed tree could point to the right.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.ops.types import Array
from headatlas.treebanks.sentences import ROOT, Sentence
from headatlas.treebanks.words import WordBatch

ORIENTATIONS = ("parent attends", "child attends")


def arborescences(weights: Array, root: int) -> Array:
    """The parent of each node, ROOT for the root, of the tree with the largest sum of weights[parent, child].

    [..., node, node] -> [..., node]. Chu and Liu 1965, Edmonds 1967, by the library ufal.chu_liu_edmonds.
    """
    from ufal.chu_liu_edmonds import chu_liu_edmonds

    n = weights.shape[-1]
    if n == 1:
        return np.full(weights.shape[:-1], ROOT)
    order = np.array([root, *(i for i in range(n) if i != root)])  # the library's root is node 0
    ordered = np.asarray(weights, dtype=np.float64)[..., order[:, None], order]
    scores = np.swapaxes(ordered, -1, -2).copy().reshape(-1, n, n)  # [tree, child, parent]
    scores[:, 0] = np.nan  # nothing points to the root
    scores[:, np.arange(n), np.arange(n)] = np.nan
    named = np.append(order, ROOT)  # the library's -1, of the root, is the last one
    found = np.empty((len(scores), n), int)
    for parents, one in zip(found, scores, strict=True):
        parents[order] = named[chu_liu_edmonds(one)[0]]
    return found.reshape(weights.shape[:-1])


def edges_found(maps: Array, root: int, gold: Collection[tuple[int, int]], *, causal: bool) -> Array:
    """How many gold edges the trees of maps [head, word, word] have, whatever their direction: [head, orientation].

    Causal maps are made symmetric first. gold: pairs of words.
    """
    n = maps.shape[-1]
    wanted = np.zeros((n, n + 1), bool)  # the last column is that of ROOT, no word
    for a, b in gold:
        wanted[a, b] = wanted[b, a] = True
    turned = np.swapaxes(maps, -1, -2)
    weights = (maps + turned)[:, None] if causal else np.stack([maps, turned], 1)  # symmetric ones have one orientation
    counts = wanted[np.arange(n), arborescences(weights, root)].sum(-1)
    return np.broadcast_to(counts, (len(maps), len(ORIENTATIONS)))


@dataclass(frozen=True)
class Trees:
    """uuas [head, orientation]; chain: that of neighbours; n: gold edges."""

    heads: tuple[HeadId, ...]
    uuas: Array
    chain: float
    n: int


class TreeCounts:
    """Gold edges found by each head's trees; those of punctuation count where `punctuation` is true."""

    def __init__(
        self, heads: tuple[HeadId, ...], sentences: Sequence[Sentence], *, causal: bool, punctuation: bool = False
    ) -> None:
        self.heads, self.causal, self.punctuation = heads, causal, punctuation
        self.found = np.zeros((len(heads), len(ORIENTATIONS)))
        self.edges = self.chain = 0

    def begin(self, part: WordBatch) -> None:
        """The gold edges of a batch."""
        self.part = part
        for one in part.sentences:
            pairs = edges_of(one, self.punctuation)
            self.edges += len(pairs)
            self.chain += sum(b - a == 1 for a, b in pairs)

    def add(self, place: slice, maps: Tensor) -> None:
        """Count a layer's trees: maps [sentence, head, word, word]."""
        for row, one in enumerate(self.part.sentences):
            n, pairs = len(one.words), edges_of(one, self.punctuation)
            if not pairs:
                continue
            words = maps[row, :, :n, :n].double().cpu().numpy()
            self.found[place] += edges_found(words, one.root, pairs, causal=self.causal)

    def result(self) -> Trees:
        """The share of gold edges in each head's trees."""
        n = max(self.edges, 1)
        return Trees(self.heads, self.found / n, self.chain / n, self.edges)


def edges_of(sentence: Sentence, punctuation: bool = False) -> set[tuple[int, int]]:
    """Gold edges without direction; those of punctuation are left out unless asked for."""
    return {
        (min(i, head), max(i, head))
        for i, (head, label) in enumerate(zip(sentence.heads, sentence.relations, strict=True))
        if head != ROOT and (punctuation or label.split(":")[0] != "punct")
    }
