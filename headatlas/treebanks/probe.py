"""An attention-only probing classifier: how much of the dependencies all heads together hold (Clark et al. 2019, section 5.3).

For each word the candidates for its head are the other words of the sentence; a candidate's score is a weighted sum of the
attention of every head from the word to it and back, with one weight for each, and the scores go through a softmax. Trained on
every other sentence, counted on the sentences between. Chance is the same classifier with the distance between the words in place of attention. Differs from
the paper: no word vectors, and the root is no candidate, nor is it asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.treebanks.dependencies import LEFT_OUT
from headatlas.treebanks.sentences import ROOT, Sentence
from headatlas.treebanks.words import WordBatch

MOST = 400  # sentences that are kept: their attention lies in memory
FEWEST = 20
FARTHEST = 8  # places apart that have a weight of their own
ROUNDS = 60  # of L-BFGS
DECAY = 1e-4


@dataclass(frozen=True)
class Probe:
    """uas: share of held-out words whose head is found; by_distance: the same from distances alone. words, sentences: held out.

    weights [head, 2]: of attention to the candidate and from it.
    """

    heads: tuple[HeadId, ...]
    uas: float
    by_distance: float
    words: int
    sentences: int
    weights: np.ndarray[tuple[int, int], np.dtype[np.float64]]


class ProbeCounts:
    """The attention of the first MOST sentences. Raises BadInput for fewer than FEWEST."""

    def __init__(self, heads: tuple[HeadId, ...], sentences: Sequence[Sentence], *, causal: bool) -> None:
        if len(sentences) < FEWEST:
            raise BadInput(f"A probe cannot be trained on {len(sentences)} sentences.", f"Give {FEWEST} or more.")
        self.heads = heads
        self.features: list[Tensor] = []  # of a sentence [word, candidate, 2 x head]
        self.gold: list[list[int]] = []  # the head of each word, ROOT where it is not asked about

    def begin(self, part: WordBatch) -> None:
        """Make room for the sentences of a batch."""
        self.now: list[tuple[int, Tensor]] = []
        for row, (index, one) in enumerate(zip(part.index, part.sentences, strict=True)):
            if index >= MOST:
                continue
            n = len(one.words)
            asked = zip(one.heads, one.relations, strict=True)
            self.gold.append([ROOT if label.split(":")[0] in LEFT_OUT else head for head, label in asked])
            self.features.append(torch.zeros(n, n, 2 * len(self.heads)))
            self.now.append((row, self.features[-1]))

    def add(self, place: slice, maps: Tensor) -> None:
        """Keep a layer's maps, [sentence, head, word, word]."""
        h = len(self.heads)
        for row, features in self.now:
            n = len(features)
            map_ = maps[row, :, :n, :n].float().cpu()
            features[:, :, place] = map_.permute(1, 2, 0)
            features[:, :, h + place.start : h + place.stop] = map_.permute(2, 1, 0)

    def result(self) -> Probe:
        """Train and count."""
        found, words, sentences, weights = _held_out(self.features, self.gold)
        by_distance, *_ = _held_out([_distances(len(one)) for one in self.features], self.gold)
        per_head = weights.reshape(2, len(self.heads)).T.double().numpy()
        return Probe(self.heads, found, by_distance, words, sentences, per_head)


def _distances(n: int) -> Tensor:
    """[word, candidate, place] which of the places from -FARTHEST to FARTHEST a candidate stands at; farther ones at the ends."""
    places = torch.arange(n)
    apart = (places[None] - places[:, None]).clamp(-FARTHEST, FARTHEST) + FARTHEST
    return torch.nn.functional.one_hot(apart, 2 * FARTHEST + 1).float()


def _held_out(features: Sequence[Tensor], gold: Sequence[Sequence[int]]) -> tuple[float, int, int, Tensor]:
    """(share of heads found on odd sentences by weights trained on even ones, words, sentences, weights [feature])."""
    x, y, blocked = _rows(features[::2], gold[::2])
    weights = torch.zeros(features[0].shape[-1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = (x @ weights).masked_fill(blocked, -torch.inf)
        loss = torch.nn.functional.cross_entropy(scores, y) + DECAY * (weights**2).sum()
        loss.backward()
        return loss

    with torch.inference_mode(False), torch.enable_grad():
        optimizer.step(closure)
    x, y, blocked = _rows(features[1::2], gold[1::2])
    with torch.no_grad():
        right = (x @ weights).masked_fill(blocked, -torch.inf).argmax(-1) == y
    return float(right.double().mean()), len(y), len(gold[1::2]), weights.detach()


def _rows(features: Sequence[Tensor], gold: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Words that are asked about: features [word, candidate, feature], head [word], candidates that are none [word, candidate]."""
    most = max(map(len, features))
    x, y, blocked = [], [], []
    for one, heads in zip(features, gold, strict=True):
        asked = [i for i, head in enumerate(heads) if head != ROOT]
        x.append(torch.nn.functional.pad(one[asked], (0, 0, 0, most - len(one))))
        y += [heads[i] for i in asked]
        places = torch.arange(most)
        blocked.append((places >= len(one)) | (places == torch.tensor(asked, dtype=torch.long)[:, None]))
    return torch.cat(x), torch.tensor(y), torch.cat(blocked)
