"""Heads whose attention changes most where a constituent ends."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.detectors._measures.gold_syntax import maps_of, sentences_of
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import at_offset
from headatlas.task import Batch
from headatlas.tasks.syntax import syntax
from headatlas.treebanks.constituents import branching, cut_spans, distances


@detector(head_type="constituency-grammar-inducing-head", task=syntax, version=1, minimum_effect=0.05, attention="both")
def constituency(layer: LayerView, batch: Batch) -> Tensor:
    """Share of a text's constituents in the trees of a head's attention: 0 none, 1 all.

    Formula: the distance of neighbouring words is the Hellinger distance of their attention rows, and a sentence is cut where
    it is largest, its parts again (Luo 2021); found constituents of two words or more, the whole sentence left out, over all in
    the first four sentences of a text, punctuation left out. All such trees have as many spans, so F1 rises and falls with it.
    Chance: the trees that branch to the right, to the left or in the middle, whichever finds most.
    """
    maps = maps_of(layer, batch)
    found = torch.zeros(len(batch), maps.shape[1], device="cpu")  # trees are parsed on the processor
    total = torch.zeros(len(batch), device="cpu")
    alike: dict[int, list[tuple[int, list[int], set[tuple[int, int]]]]] = {}  # sentences by their length, cut at once
    for e, words, gold in sentences_of(batch):
        alike.setdefault(len(words), []).append((e, words, set(gold)))
        total[e] += len(gold)
    for group in alike.values():
        place = torch.tensor([words for _, words, _ in group], device=maps.device)  # [sentence, word]
        texts = torch.tensor([e for e, _, _ in group], device=maps.device)[:, None, None]
        cut = maps[texts, :, place[:, :, None], place[:, None]].movedim(-1, 1)  # [sentence, head, word, word]
        for (e, _, spans), first, last in zip(group, *cut_spans(distances(cut).cpu().numpy()), strict=True):
            wanted = np.zeros((place.shape[1], place.shape[1]), bool)
            wanted[tuple(zip(*spans, strict=True))] = True
            found[e] += torch.from_numpy(wanted[first, last].sum(-1))
    return (found / total[:, None]).to(layer.q.device)  # 0 / 0 where a text has none


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The share of the branching tree, the same for all heads: [example, head]."""
    found, total = torch.zeros(2, len(batch), device="cpu")
    for e, words, gold in sentences_of(batch):
        found[e] += len(branching(len(words), batch.facts["branching"]) & set(gold))
        total[e] += len(gold)
    return (found / total).to(layer.q.device)[:, None].expand(-1, layer.n_heads)


def planted(batch: Batch) -> Planted:
    """Every word attends to one word for each constituent it is in, half as much for each that lies deeper."""
    n, length = batch.tokens.shape
    word, pattern = batch.marks["word"], torch.zeros(n, length, length)
    pattern[:, :, 0] = 1.0
    for e, words, gold in sentences_of(batch):
        last = [int((word[e] == one).nonzero()[-1]) for one in words]  # the last token of each word
        outer = sorted(gold, key=lambda span: span[0] - span[1])  # the longest first
        for i, one in enumerate(words):
            inside = [number for number, (a, b) in enumerate(outer) if a <= i <= b]
            row = torch.zeros(length)
            for depth, number in enumerate(inside):
                row[last[number]] += 0.5 ** (depth + 1)
            row[last[-1]] += 1 - row.sum()  # what no constituent has goes where all words of the sentence look
            pattern[e, word[e] == one] = row
    return Planted(pattern)


def look_alike(batch: Batch) -> Planted:
    """A previous-token head, all of whose rows differ alike."""
    n, length = batch.tokens.shape
    return Planted(at_offset((n, length, length), 1))
