"""What detectors of syntax read of a layer: attention between the words of one sentence, and the gold syntax beside it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from headatlas.detector import Measured, Planted
from headatlas.model.core.view import LayerView
from headatlas.ops import stats
from headatlas.ops.patterns import aimed
from headatlas.task import Batch
from headatlas.treebanks.words import word_maps

FEWEST = 3  # examples that have a choice, for it to be chosen
MARGIN, LEVEL = 0.1, 0.01  # of what is told of a head: above chance (Voita et al. 2019), and how sure
_MAPS: weakref.WeakKeyDictionary[LayerView, Tensor] = weakref.WeakKeyDictionary()  # several detectors ask of one layer


def maps_of(layer: LayerView, batch: Batch) -> Tensor:
    """[example, head, word, word] attention between the words of one sentence; 0 between those of two.

    Weights on a split word are the sum over its pieces; its row is the mean over theirs, in causal attention that of the last,
    since the first does not see the others.
    """
    found = _MAPS.get(layer)
    if found is None:
        of = batch.labels["sentence"].to(layer.q.device)
        rows = "last" if layer.causal else "mean"
        whole = word_maps(layer.pattern.float(), batch.marks["word"], of.shape[1], rows)
        same = (of[:, :, None] == of[:, None, :]) & (of >= 0)[:, :, None]
        found = _MAPS[layer] = whole * same[:, None]
    return found


def sentences_of(batch: Batch) -> Iterator[tuple[int, list[int], list[tuple[int, int]]]]:
    """(example, words that are no punctuation, constituents among these) of each sentence whose constituents are known."""
    labels = batch.labels
    for e in range(len(batch)):
        spans = [(a, b) for a, b in labels["spans"][e].tolist() if a >= 0]
        of, spoken = labels["sentence"][e].tolist(), labels["spoken"][e].tolist()
        for number in sorted({of[a] for a, _ in spans}):
            words = [i for i, one in enumerate(of) if one == number and spoken[i] == 1]
            place = {word: i for i, word in enumerate(words)}
            yield e, words, [(place[a], place[b]) for a, b in spans if of[a] == number]


def best_elsewhere(found: Tensor) -> Measured:
    """The choice in which a head exceeds chance most surely on one half of the examples, on the other half.

    found: [example, head, 2 * choice], the scores of the choices and then the chance level of each. Examples at even places
    choose and are not scored (see `chosen_place`); most surely: by its mean less two standard errors, or a relation with few
    edges would be chosen for its luck.
    """
    scores, chance = found.chunk(2, -1)
    excess = scores[::2] - chance[::2]
    count = (~excess.isnan()).sum(0)
    mean = excess.nanmean(0)
    error = ((excess - mean) ** 2).nansum(0).sqrt() / count  # of the mean, but for n in place of n - 1
    sure = (mean - 2 * error).masked_fill(count < min(FEWEST, len(excess)), -torch.inf).nan_to_num(-torch.inf)
    best, known = sure.argmax(-1), (sure > -torch.inf).any(-1)
    values, control = (torch.full(found.shape[:2], torch.nan, dtype=found.dtype) for _ in range(2))
    index = best.expand(len(found), -1)[..., None]
    values[1::2] = scores.gather(2, index)[1::2, :, 0].masked_fill(~known, torch.nan)
    control[1::2] = chance.gather(2, index)[1::2, :, 0].masked_fill(~known, torch.nan)
    return Measured(values, control)


def passing(found: Tensor, names: Sequence[str]) -> list[str]:
    """For each head the choices in which it exceeds chance by MARGIN, at q < LEVEL over all heads and choices; "" for none.

    Such as: obj to head 78% (offset 39%), det to head 71% (offset 57%).
    """
    scores, chance = (part.flatten(1).numpy() for part in found.chunk(2, -1))
    q = stats.false_discovery(stats.paired_p(scores, chance)).reshape(found.shape[1], -1)
    means, levels = (stats.mean(part).reshape(found.shape[1], -1) for part in (scores, chance))
    above = (means - levels >= MARGIN) & (q < LEVEL)
    told = []
    for chosen, mean, level in zip(above, means, levels, strict=True):
        order = [int(i) for i in np.argsort(level - mean, kind="stable") if chosen[i]]
        told.append(", ".join(f"{names[i]} {mean[i]:.0%} ({level[i]:.0%})" for i in order))
    return told


def to_words(batch: Batch, wanted: Tensor) -> Planted:
    """Every token of a word attends to all pieces of another, wanted [example, word] (-1 for none), evenly."""
    word = batch.marks["word"]
    n, length = word.shape
    goal = torch.where(word >= 0, wanted.gather(1, word.clamp(min=0)), -1)  # [example, pos]
    hit = (goal[:, :, None] == word[:, None, :]) & (goal >= 0)[:, :, None]
    example, query, key = hit.nonzero(as_tuple=True)
    counts = [int((example == e).sum()) for e in range(n)]
    queries, keys = (
        torch.nn.utils.rnn.pad_sequence(part.split(counts), batch_first=True, padding_value=-1) for part in (query, key)
    )
    return Planted(aimed((n, length, length), queries, keys))
