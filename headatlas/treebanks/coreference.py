"""Which heads point from a word to an earlier one that means the same: Clark et al. 2019, section 5.

For each mention with an earlier one of the same chain: among the earlier mentions, the one that the mention attends to most is
the guess. Chance is the nearest earlier mention, the same for all heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.ops.stats import share_interval
from headatlas.ops.types import Array
from headatlas.treebanks.sentences import Sentence
from headatlas.treebanks.words import WordBatch


@dataclass(frozen=True)
class Coreference:
    """accuracy, low, high [head], 95% interval (Wilson 1927) over n mentions; nearest: what the nearest mention gets."""

    heads: tuple[HeadId, ...]
    accuracy: Array
    low: Array
    high: Array
    nearest: float
    n: int


def anaphors(sentence: Sentence) -> list[tuple[int, list[int], list[bool]]]:
    """(word, earlier mentions' words, whether each means the same) of mentions that have two earlier ones to choose from."""
    found = []
    for i, (word, chain) in enumerate(sentence.mentions):
        earlier = sentence.mentions[:i]
        same = [other == chain for _, other in earlier]
        if any(same) and not all(same):
            found.append((word, [place for place, _ in earlier], same))
    return found


class CoreferenceCounts:
    """Right guesses over a stream of batches."""

    def __init__(self, heads: tuple[HeadId, ...], sentences: Sequence[Sentence], *, causal: bool) -> None:
        self.heads = heads
        self.right = np.zeros(len(heads))
        asked = [same for one in sentences for _, _, same in anaphors(one)]
        self.n = len(asked)
        self.nearest = float(np.mean([same[-1] for same in asked])) if asked else float("nan")

    def begin(self, part: WordBatch) -> None:
        """The mentions of a batch."""
        self.asked = [(row, *one) for row, sentence in enumerate(part.sentences) for one in anaphors(sentence)]

    def add(self, place: slice, maps: Tensor) -> None:
        """Count a layer's guesses: maps [sentence, head, word, word]."""
        for row, word, earlier, same in self.asked:
            weights = maps[row, :, word, earlier]
            most, guess = weights.max(-1)
            right = torch.tensor(same, device=maps.device)[guess] & (most > 0)
            self.right[place] += right.double().cpu().numpy()

    def result(self) -> Coreference:
        """Shares with Wilson's interval."""
        n = max(self.n, 1)
        low, high = np.array([share_interval(int(right), n) for right in self.right]).T
        return Coreference(self.heads, self.right / n, low, high, self.nearest, self.n)
