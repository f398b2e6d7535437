"""Constituents out of a head's attention: syntactic distance between neighbouring words (Luo 2021 after Kim et al. 2020).

The distance between words i and i + 1 is that of their attention rows; the sentence is cut where it is largest, and the parts
again. Sentence F1 is taken over sets of spans; single words and the whole sentence do not count. Branching trees need no
model: right-branching is what English mostly is, and what a head has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.choices import ROW_DISTANCE
from headatlas.heads import HeadId
from headatlas.ops.types import Array
from headatlas.treebanks.sentences import Sentence
from headatlas.treebanks.words import WordBatch

Spans = frozenset[tuple[int, int]]
LABELS = ("SBAR", "NP", "VP", "PP", "ADJP", "ADVP")
BASELINES = ("left-branching", "right-branching", "balanced")
FEWEST, MOST = 2, 40  # words


def distances(maps: Tensor, kind: str = "hellinger") -> Tensor:
    """Distance of the rows of neighbouring words: maps [..., word, word] -> [..., word - 1]. Raises BadInput.

    hellinger: sqrt(sum (sqrt p - sqrt q)^2 / 2). jsd: the square root of the Jensen-Shannon divergence in nats. Rows are made
    to sum to 1; one that gives nothing is uniform.
    """
    total = maps.sum(-1, keepdim=True)
    rows = torch.where(total > 0, maps / total.clamp(min=1e-30), 1.0 / maps.shape[-1])
    p, q = rows[..., :-1, :], rows[..., 1:, :]
    if kind == "hellinger":
        return ((p.sqrt() - q.sqrt()) ** 2).sum(-1).div(2).sqrt()
    ROW_DISTANCE.demand(kind)
    return jensen_shannon(p, q).clamp(min=0).sqrt()


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Divergence of rows from their mean, [..., key] -> [...], in nats: 0 for equal rows, ln 2 for rows that share nothing."""
    middle = (p + q) / 2

    def kl(a: Tensor) -> Tensor:
        return torch.where(a > 0, a * (a.clamp(min=1e-30) / middle.clamp(min=1e-30)).log(), 0.0).sum(-1)

    return (kl(p) + kl(q)) / 2


def biased(found: Array, amount: float) -> Array:
    """Distances with a pull to the right-branching tree, amount * mean * (1 - i / (m - 1)) (Kim et al. 2020)."""
    m = len(found)
    slope = 1 - np.arange(m) / max(m - 1, 1)
    return found + amount * found.mean() * slope if m else found


def parse(found: Array) -> Spans:
    """The spans (first, last) of the tree that cuts at the largest distance, the leftmost of equals, [word - 1] -> spans.

    Spans of one word are left out.
    """
    spans: set[tuple[int, int]] = set()
    open_ = [(0, len(found))]
    while open_:
        first, last = open_.pop()
        if last <= first:
            continue
        spans.add((first, last))
        cut = first + int(np.argmax(found[first:last]))
        open_ += [(first, cut), (cut + 1, last)]
    return frozenset(spans)


def cut_spans(found: Array) -> tuple[Array, Array]:
    """(first, last), [..., word - 1] each, of the spans that `parse` finds in each row of distances [..., word - 1], no two alike.

    The span of a cut reaches to the nearest cut on either side that is made before it: on the left one at least as large, on
    the right a larger one.
    """
    m = found.shape[-1]
    place = np.arange(m)
    size = np.where(np.isnan(found), np.inf, found)
    other, own = size[..., None, :], size[..., :, None]
    before = np.where((other >= own) & (place < place[:, None]), place, -1).max(-1, initial=-1)
    after = np.where((other > own) & (place > place[:, None]), place, m).min(-1, initial=m)
    return before + 1, after


def branching(n: int, kind: str) -> Spans:
    """The tree of a sentence of n words without a look at it; kind is one of BASELINES."""
    if kind == "right-branching":
        return frozenset((i, n - 1) for i in range(n - 1))
    if kind == "left-branching":
        return frozenset((0, i) for i in range(1, n))
    spans, open_ = set(), [(0, n)]
    while open_:
        first, stop = open_.pop()
        if stop - first > 1:
            spans.add((first, stop - 1))
            middle = (first + stop) // 2
            open_ += [(first, middle), (middle, stop)]
    return frozenset(spans)


def counted(sentence: Sentence) -> Spans:
    """The gold spans that count: of two words or more, but not all of them; of equal ones one."""
    whole = (0, len(sentence.words) - 1)
    return frozenset((a, b) for a, b, _ in sentence.spans if b > a and (a, b) != whole)


def f1(predicted: Spans, sentence: Sentence) -> float:
    """F1 of a sentence's spans, from 0 to 1; where there is nothing to find, finding nothing is 1."""
    right, whole = counted(sentence), (0, len(sentence.words) - 1)
    made = predicted - {whole}
    common = len(made & right)
    precision = common / len(made) if made else 1.0
    recall = common / len(right) if right else 1.0
    if not made and right:
        precision = 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def spoken(sentence: Sentence) -> tuple[list[int], Sentence]:
    """The words that are no punctuation, and the sentence of them alone, as treebanks of constituents are parsed."""
    marks = [label.split(":")[0] == "punct" for label in sentence.relations] or [False] * len(sentence.words)
    kept = [i for i, mark in enumerate(marks) if not mark]
    spans = set()
    for first, last, label in sentence.spans:
        inside = [place for place, i in enumerate(kept) if first <= i <= last]
        if inside:
            spans.add((inside[0], inside[-1], label))
    words = tuple(sentence.words[i] for i in kept)
    return kept, Sentence(words, (True,) * len(words), spans=frozenset(spans), name=sentence.name)


@dataclass(frozen=True)
class Constituents:
    """f1, low, high [head]: mean sentence F1 with a 95% interval; recall [head, label] of LABELS; baselines: name -> F1.

    n: sentences of FEWEST to MOST words, punctuation left out. gain_p [head]: that a head is better than the best baseline by chance alone.
    """

    heads: tuple[HeadId, ...]
    f1: Array
    low: Array
    high: Array
    recall: Array
    baselines: dict[str, float]
    n: int
    gain_p: Array


class ConstituentCounts:
    """F1 of each head's trees over a stream of batches."""

    def __init__(
        self, heads: tuple[HeadId, ...], sentences: Sequence[Sentence], *, causal: bool,
        distance: str = "hellinger", bias: float = 0.0,
    ) -> None:  # fmt: skip
        self.heads, self.distance, self.bias = heads, distance, bias
        self.used = [one for one in (spoken(sentence)[1] for sentence in sentences) if self._fits(one)]
        scores = {kind: [f1(branching(len(s.words), kind), s) for s in self.used] for kind in BASELINES}
        self.baselines = {kind: float(np.mean(values)) if values else float("nan") for kind, values in scores.items()}
        self.bar = max(self.baselines, key=lambda kind: self.baselines[kind])
        self.sums, self.squares = np.zeros(len(heads)), np.zeros(len(heads))
        self.gain, self.gain_squares = np.zeros(len(heads)), np.zeros(len(heads))
        self.found, self.labels = np.zeros((len(heads), len(LABELS))), np.zeros(len(LABELS))

    def _fits(self, sentence: Sentence) -> bool:
        return bool(sentence.spans) and FEWEST <= len(sentence.words) <= MOST

    def begin(self, part: WordBatch) -> None:
        """The gold spans of a batch."""
        self.texts = [(row, *spoken(one)) for row, one in enumerate(part.sentences)]
        self.texts = [text for text in self.texts if self._fits(text[2])]
        for _, _, one in self.texts:
            self.labels += [len(self._of(one, label)) for label in LABELS]

    @staticmethod
    def _of(sentence: Sentence, label: str) -> set[tuple[int, int]]:
        return {(a, b) for a, b, name in sentence.spans if name == label and (a, b) in counted(sentence)}

    def add(self, place: slice, maps: Tensor) -> None:
        """Parse a layer's maps, [sentence, head, word, word]."""
        for row, kept, one in self.texts:
            n = len(kept)
            bar = f1(branching(n, self.bar), one)
            wanted = [self._of(one, label) for label in LABELS]
            rows = distances(maps[row][:, kept][..., kept].double(), self.distance).cpu().numpy()
            for head, found in enumerate(rows, place.start):
                spans = parse(biased(found, self.bias) if self.bias else found)
                value = f1(spans, one)
                self.sums[head] += value
                self.squares[head] += value**2
                self.gain[head] += value - bar
                self.gain_squares[head] += (value - bar) ** 2
                self.found[head] += [len(spans & label) for label in wanted]

    def result(self) -> Constituents:
        """Means, intervals and the test against the best branching tree."""
        from scipy import stats as scipy_stats

        n = max(len(self.used), 2)
        mean, reach = self.sums / n, np.sqrt(np.maximum(self.squares / n - (self.sums / n) ** 2, 0) / (n - 1))
        error = np.sqrt(np.maximum(self.gain_squares / n - (self.gain / n) ** 2, 0) / (n - 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            p = scipy_stats.t.sf(self.gain / n / error, n - 1)
        p = np.where(error > 0, p, np.where(self.gain > 0, 0.0, 1.0))
        wide = scipy_stats.t.ppf(0.975, n - 1) * reach
        recall = self.found / np.maximum(self.labels, 1)
        return Constituents(
            self.heads, mean, mean - wide, mean + wide, recall, self.baselines, len(self.used), p,
        )  # fmt: skip
