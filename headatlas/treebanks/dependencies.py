"""Which heads point from a word to the word it depends on, or back: Clark et al. 2019 (section 5), Htut et al. 2019 (MAX).

A head's prediction for word i is the other word it attends to most, `argmax_j A[i, j]` ("to head"), or the other word that
attends to it most, `argmax_j A[j, i]` ("from head"). "Either" is Htut's MAX: the edge is found where the dependent attends
most to its head, or the head most to this dependent. Start and end tokens are left out, the diagonal does not count.
Chance is the best fixed offset of the relation over the same sentences, "always the word two to the left": to the left alone
or to the right alone where causal attention can look no other way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats as scipy_stats
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.ops.stats import false_discovery
from headatlas.ops.types import Array
from headatlas.treebanks.sentences import ROOT, Sentence
from headatlas.treebanks.words import WordBatch

DIRECTIONS = ("to head", "from head", "either")
REACH = 8  # offsets tried on each side
FEWEST = 20  # edges of a relation that is asked about
ALL = "all"  # every edge but those of punctuation and the root
LEFT_OUT = ("punct", "root")


def relation_names(sentences: Sequence[Sentence]) -> tuple[str, ...]:
    """Relations with FEWEST edges or more, most frequent first; a sub-type with fewer counts as its relation."""
    counted = Counter(
        label for one in sentences for label, head in zip(one.relations, one.heads, strict=True) if head != ROOT
    )
    kept = {label for label, n in counted.items() if n >= FEWEST}
    whole: Counter[str] = Counter()
    for label, n in counted.items():
        whole[label if label in kept else label.split(":")[0]] += n
    ordered = [label for label, n in whole.most_common() if n >= FEWEST and label not in LEFT_OUT]
    return (ALL, *ordered)


def edges(sentence: Sentence, number: Mapping[str, int]) -> Iterator[tuple[int, int, list[int]]]:
    """(dependent, head, columns of the relations that the edge is of) of each edge; number: relation -> column."""
    for i, (label, head) in enumerate(zip(sentence.relations, sentence.heads, strict=True)):
        if head != ROOT:
            base = label.split(":")[0]
            columns = [number.get(label, number.get(base, -1)), -1 if base in LEFT_OUT else number[ALL]]
            yield i, head, [column for column in columns if column >= 0]


def gold(part: WordBatch, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """heads [sentence, word], ROOT where a word has none or lies past the end; which relations an edge is of, [sentence, word, relation]."""
    number = {name: i for i, name in enumerate(names)}
    heads = torch.full(part.valid.shape, ROOT)
    member = torch.zeros(*part.valid.shape, len(names))
    for row, one in enumerate(part.sentences):
        for i, head, columns in edges(one, number):
            heads[row, i] = head
            member[row, i, columns] = 1
    return heads, member


@dataclass(frozen=True)
class Dependencies:
    """How often each head finds each relation.

    relations, n [relation]: edges of each. rate, low, high [head, relation, direction]: share found, with a 95% interval over
    sentences. held_out [relation, direction]: the rate of the head that is best on every other sentence, on the sentences
    between. offset, offset_rate [relation, direction]: the best fixed offset of the dependent to its head and its share.
    q [head, relation, direction]: that the rate exceeds the offset's by chance, corrected over all of these (Benjamini and
    Hochberg 1995).
    """

    heads: tuple[HeadId, ...]
    relations: tuple[str, ...]
    n: Array
    rate: Array
    low: Array
    high: Array
    held_out: Array
    offset: Array
    offset_rate: Array
    q: Array

    def best(self, relation: str, direction: str = "to head") -> tuple[HeadId, float]:
        """The head that finds most edges of a relation, and its rate."""
        column, way = self.relations.index(relation), DIRECTIONS.index(direction)
        head = int(self.rate[:, column, way].argmax())
        return self.heads[head], float(self.rate[head, column, way])

    def passing(self, margin: float = 0.1, level: float = 0.01) -> list[tuple[HeadId, str, str, float]]:
        """(head, relation, direction, rate) of all that exceed the offset by `margin` (Voita et al. 2019) at q < level."""
        above = (self.rate - self.offset_rate >= margin) & (self.q < level)
        above[:, self.relations.index(ALL)] = False
        above[..., DIRECTIONS.index("either")] = False
        return [
            (self.heads[h], self.relations[r], DIRECTIONS[d], float(self.rate[h, r, d]))
            for h, r, d in np.argwhere(above)
        ]


class DependencyCounts:
    """Counts over a stream of batches; its size does not depend on the number of sentences."""

    def __init__(self, heads: tuple[HeadId, ...], sentences: Sequence[Sentence], *, causal: bool) -> None:
        self.heads, self.names = heads, relation_names(sentences)
        shape = (len(heads), len(self.names), len(DIRECTIONS))
        self.offset, self.offset_rate, self.n = _offsets(sentences, self.names, causal=causal)
        self.hits = np.zeros((2, *shape))  # of even and of odd sentences
        self.edges = np.zeros((2, len(self.names)))
        self.squares, self.products, self.edge_squares = np.zeros(shape), np.zeros(shape), np.zeros(len(self.names))
        self.gain, self.gain_squares = np.zeros(shape), np.zeros(shape)  # over the offset, by sentence
        self.sentences = np.zeros(len(self.names))  # that have the relation

    def begin(self, part: WordBatch) -> None:
        """What one batch needs before its layers come."""
        self.part, (self.gold, self.member) = part, gold(part, self.names)
        own = torch.arange(self.gold.shape[1])
        shift = torch.from_numpy(self.offset)  # [relation, direction]
        there = (self.gold - own)[:, :, None, None] == shift
        self.by_offset = torch.einsum("ewr,ewrd->erd", self.member, there.float()).double().numpy()
        self.by_edges = self.member.sum(1).double().numpy()
        even = np.array(part.index) % 2 == 0
        self.half = np.stack([even, ~even]).astype(float)
        self.edges += self.half @ self.by_edges
        self.edge_squares += (self.by_edges**2).sum(0)
        self.sentences += (self.by_edges > 0).sum(0)

    def add(self, place: slice, maps: Tensor) -> None:
        """Count a layer's predictions: maps [sentence, head, word, word], its heads at `place` among all."""
        found = predictions(maps, self.gold.to(maps.device))  # [sentence, head, word, direction]
        by = torch.einsum("ehwd,ewr->ehrd", found, self.member.to(maps.device)).double().cpu().numpy()
        self.hits[:, place] += np.einsum("se,ehrd->shrd", self.half, by)
        self.squares[place] += (by**2).sum(0)
        self.products[place] += (by * self.by_edges[:, None, :, None]).sum(0)
        gain = by - self.by_offset[:, None]
        self.gain[place] += gain.sum(0)
        self.gain_squares[place] += (gain**2).sum(0)

    def result(self) -> Dependencies:
        """Rates, intervals and tests of all that was counted."""
        n = self.edges.sum(0)[:, None]
        hits = self.hits.sum(0)
        rate = hits / np.maximum(n, 1)
        # A ratio of sums over sentences: its variance by the residuals c - rate n of each (Cochran 1977, section 2.11).
        residual = self.squares - 2 * rate * self.products + rate**2 * self.edge_squares[:, None]
        s = np.maximum(self.sentences, 2)[:, None]
        error = np.sqrt(np.maximum(residual, 0) * s / (s - 1)) / np.maximum(n, 1)
        reach = scipy_stats.t.ppf(0.975, s - 1) * error
        spread = np.sqrt(np.maximum(self.gain_squares - self.gain**2 / s, 0) * s / (s - 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            p = scipy_stats.t.sf(self.gain / spread, s - 1)
        p = np.where(spread > 0, p, np.where(self.gain > 0, 0.0, 1.0))
        return Dependencies(
            self.heads, self.names, n[:, 0], rate, np.clip(rate - reach, 0, 1), np.clip(rate + reach, 0, 1),
            self._held_out(), self.offset, self.offset_rate, false_discovery(p),
        )  # fmt: skip

    def _held_out(self) -> Array:
        """[relation, direction]: choose on one half of the sentences, count on the other, both ways."""
        chosen = self.hits.argmax(1)  # [half, relation, direction]; a half's edges are the same for all heads
        other = np.stack([np.take_along_axis(self.hits[1 - half], chosen[half][None], 0)[0] for half in range(2)])
        found: Array = other.sum(0) / np.maximum(self.edges.sum(0), 1)[:, None]
        return found


def predictions(maps: Tensor, heads: Tensor) -> Tensor:
    """Whether each edge is found: [sentence, head, word, direction] of 0 and 1.

    maps [sentence, head, word, word]; heads [sentence, word], ROOT for none. Where a row gives nothing to any other word,
    nothing is predicted.
    """
    n = maps.shape[-1]
    others = maps.masked_fill(torch.eye(n, dtype=torch.bool, device=maps.device), 0.0)
    (most, to), (least, back) = others.max(-1), others.max(-2)
    to, back = torch.where(most > 0, to, -1), torch.where(least > 0, back, -1)
    present = (heads >= 0)[:, None]
    own = torch.arange(n, device=maps.device)
    of_head = to.gather(2, heads.clamp(min=0)[:, None].expand_as(to))  # what each word's head attends to most
    hit, from_head = (to == heads[:, None]) & present, (back == heads[:, None]) & present
    either = hit | ((of_head == own) & present)
    return torch.stack([hit, from_head, either], -1).float()


def _offsets(sentences: Sequence[Sentence], names: Sequence[str], *, causal: bool) -> tuple[Array, Array, Array]:
    """(offset, its rate) [relation, direction] of the best fixed offset, and the edges [relation]."""
    number = {name: i for i, name in enumerate(names)}
    found = ((head - i, columns) for one in sentences for i, head, columns in edges(one, number))
    return best_offsets(found, len(names), causal=causal)


def best_offsets(edges: Iterable[tuple[int, list[int]]], relations: int, *, causal: bool) -> tuple[Array, Array, Array]:
    """(offset, its rate) [relation, direction] of the best fixed offset, and how many edges [relation].

    edges: (places from the dependent to its head, columns of the relations that it is of) of each.
    """
    shifts = np.array([k for k in range(-REACH, REACH + 1) if k])
    counts, total = np.zeros((relations, len(shifts))), np.zeros(relations)
    for shift, columns in edges:
        total[columns] += 1
        counts[columns] += shifts == shift
    # With causal attention the head lies to the left of a word that points to it, and to the right of one it points to.
    ways = [shifts < 0, shifts > 0, shifts != 0] if causal else [shifts != 0] * 3
    best = np.stack([np.where(way, counts, -1).argmax(1) for way in ways], 1)
    rate = np.take_along_axis(counts, best, 1) / np.maximum(total, 1)[:, None]
    return shifts[best], rate, total
