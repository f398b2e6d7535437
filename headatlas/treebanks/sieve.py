"""Roles by sieve bias score and hypothesis test: Pande et al. 2021, The Heads Hypothesis.

score(q) = mean of A[q, k] over a set of keys (the sieve) / mean of A[q, k] over all visible keys. Uniform attention scores
exactly 1. A head's score on a text is the mean over its queries, and it has the role where the mean over texts exceeds a
threshold (one-sided t-test, p < 0.05; the paper labels at threshold 3 and does not correct for the number of heads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats as scipy_stats
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.model.core.view import LayerView
from headatlas.ops.types import Array
from headatlas.treebanks.sentences import ROOT, Sentence
from headatlas.treebanks.words import WordBatch, seen_keys

ROLES = ("local", "delimiter", "nsubj", "obj", "amod", "advmod", "syntactic")
SYNTACTIC = ROLES[2:6]
BAND = 2  # tokens to either side
THRESHOLD = 3.0  # times what uniform attention gives: that by which the paper hands out its roles


@dataclass(frozen=True)
class Sieve:
    """mean, sd (ddof 0) [head, role] of scores over texts; n [role] texts with the role's tokens."""

    heads: tuple[HeadId, ...]
    roles: tuple[str, ...]
    mean: Array
    sd: Array
    n: Array

    def p(self, threshold: float = THRESHOLD) -> Array:
        """[head, role] of the mean score being at most `threshold`; equal scores give 0 or 1."""
        return p_above(self.mean, self.sd, self.n, threshold)


def p_above(mean: Array, sd: Array, n: Array, threshold: float) -> Array:
    """One-sided p of (mean - threshold) / (sd / sqrt n), Student's t with n - 1 degrees of freedom."""
    with np.errstate(invalid="ignore", divide="ignore"):
        t = (mean - threshold) / (sd / np.sqrt(n))
        p = scipy_stats.t.sf(t, np.maximum(n - 1, 1))
    found: Array = np.where(n < 2, np.nan, np.where(sd > 0, p, np.where(mean > threshold, 0.0, 1.0)))
    return found


class SieveCounts:
    """Sums of scores and of their squares over texts."""

    def __init__(self, heads: tuple[HeadId, ...], sentences: Sequence[Sentence], *, causal: bool) -> None:
        self.heads = heads
        self.sums, self.squares = np.zeros((len(heads), len(ROLES))), np.zeros((len(heads), len(ROLES)))
        self.n = np.zeros(len(ROLES))

    def begin(self, part: WordBatch) -> None:
        """The sieves of a batch as pairs of words, [role, sentence, word, word]."""
        self.part = part
        n = part.valid.shape[1]
        self.pairs = torch.zeros(len(SYNTACTIC) + 1, len(part.sentences), n, n)
        for row, one in enumerate(part.sentences):
            for i, (label, head) in enumerate(zip(one.relations, one.heads, strict=True)):
                base = label.split(":")[0]
                if head != ROOT and base in SYNTACTIC:
                    self.pairs[SYNTACTIC.index(base), row, i, head] = 1
                    self.pairs[-1, row, i, head] = 1

    def add(self, place: slice, maps: Tensor, layer: LayerView, sink: Tensor) -> None:
        """A layer: `maps` [sentence, head, word, word], and its pattern with `sink` [sentence, pos], the start and end tokens."""
        found = torch.cat([_of_tokens(layer, sink), self._of_words(maps, layer)], -1).double().cpu().numpy()
        known = ~np.isnan(found)
        if place.start == 0:
            self.n += known[:, 0].sum(0)
        self.sums[place] += np.nansum(found, 0)
        self.squares[place] += np.nansum(found**2, 0)

    def _of_words(self, maps: Tensor, layer: LayerView) -> Tensor:
        """[sentence, head, role]: the mean over target and source pieces of A at a relation's ends, times the visible keys."""
        visible = seen_keys(layer).sum(-1)  # [sentence, query]
        word = self.part.word.to(maps.device)
        n = maps.shape[-1]
        pieces = (word[:, None, :] == torch.arange(n, device=maps.device)[:, None]).float()
        sizes = pieces.sum(-1).clamp(min=1)  # [sentence, word]
        keys = (pieces @ visible[:, :, None].float())[..., 0] / sizes  # visible keys of a word's queries
        ratio = maps / sizes[:, None, None, :] * keys[:, None, :, None]
        pairs = self.pairs.to(maps.device)
        pairs = pairs.tril() if layer.causal else pairs  # of what stands to the right, causal attention sees nothing
        total = torch.einsum("reij,ehij->ehr", pairs, ratio)
        count = pairs.sum((-1, -2)).T[:, None]
        return torch.where(count > 0, total / count.clamp(min=1), torch.nan)

    def result(self) -> Sieve:
        """Mean and spread of all scores."""
        n = np.maximum(self.n, 1)
        mean = self.sums / n
        return Sieve(self.heads, ROLES, mean, np.sqrt(np.maximum(self.squares / n - mean**2, 0)), self.n)


def _of_tokens(layer: LayerView, sink: Tensor) -> Tensor:
    """[example, head, role] of the roles local and delimiter, mean over queries."""
    queries, seen = layer.valid_queries, seen_keys(layer)
    visible = seen.sum(-1).float()
    pattern = layer.pattern.float()
    places = torch.arange(layer.n_queries, device=pattern.device)
    near = (places[:, None] - places).abs() <= BAND
    masses = []
    for keys in (near & seen, sink.to(pattern.device)[:, None] & seen):
        size = keys.sum(-1).float()  # [example, query]
        mass = (pattern * keys[:, None]).sum(-1) * (visible / size.clamp(min=1))[:, None]
        usable = (queries & (size > 0))[:, None]
        count = usable.sum(-1)
        total = (mass * usable).sum(-1)
        masses.append(torch.where(count > 0, total / count.clamp(min=1), torch.nan))
    return torch.stack(masses, -1)
