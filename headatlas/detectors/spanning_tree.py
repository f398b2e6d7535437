"""Heads whose whole attention in a sentence is like its dependency tree."""

import torch
from torch import Tensor

from headatlas.detector import Measured, Planted, detector
from headatlas.detectors._measures.gold_syntax import best_elsewhere, maps_of, passing, to_words
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import at_offset
from headatlas.task import Batch
from headatlas.tasks._sentences import PARSED
from headatlas.tasks.syntax import syntax
from headatlas.treebanks.trees import ORIENTATIONS, edges_found


@detector(head_type="syntactic-head", task=syntax, version=1, minimum_effect=0.05, attention="both")
def spanning_tree(layer: LayerView, batch: Batch) -> Tensor:
    """Share of a sentence's edges in the maximum spanning tree of a head's attention: 0 none, 1 all (UUAS).

    Formula: the arborescence from the gold root with the largest sum of A[parent, child] ("parent attends") or A[child, parent]
    ("child attends"), whichever is better on one half of the examples, over the other half; edges without direction and without
    those of punctuation (Htut et al. 2019). Causal maps are made symmetric first, A + A^T. Chance: the chain of neighbours. Over
    the first four sentences of a text.
    """
    maps = maps_of(layer, batch).double().cpu().numpy()
    found = torch.full((len(batch), maps.shape[1], 4), torch.nan, device="cpu")  # trees are found on the processor
    for e in range(len(batch)):
        hits, chain, total = torch.zeros(maps.shape[1], 2, device="cpu"), 0, 0
        for first, last, root, edges in _gold(batch, e):
            place = slice(first, last + 1)
            hits += torch.tensor(edges_found(maps[e, :, place, place], root, edges, causal=layer.causal), device="cpu")
            chain += sum(b - a == 1 for a, b in edges)
            total += len(edges)
        if total:
            found[e] = torch.cat([hits, torch.full_like(hits, chain)], 1) / total
    return found


def _gold(batch: Batch, e: int) -> list[tuple[int, int, int, set[tuple[int, int]]]]:
    """(first word, last word, root, edges) of each sentence, the last two counted within it."""
    heads, of, spoken = (batch.labels[name][e].tolist() for name in ("heads", "sentence", "spoken"))
    found = []
    for number in range(min(PARSED, max(of) + 1)):
        words = [i for i, one in enumerate(of) if one == number]
        first = words[0]
        root = next(i for i in words if heads[i] < 0)
        pairs = [(i - first, heads[i] - first) for i in words if heads[i] >= 0 and spoken[i] == 1]
        found.append((first, words[-1], root - first, {(min(pair), max(pair)) for pair in pairs}))
    return found


def settle(found: Tensor) -> Measured:
    """The better orientation, chosen on half of the examples."""
    return best_elsewhere(found)


def told(found: Tensor) -> list[str]:
    """In which orientation a head's trees beat the chain, with both shares."""
    return passing(found, ORIENTATIONS)


def planted(batch: Batch) -> Planted:
    """Every word attends to the word it depends on."""
    return to_words(batch, batch.labels["heads"])


def look_alike(batch: Batch) -> Planted:
    """A previous-token head, whose tree is the chain."""
    n, length = batch.tokens.shape
    return Planted(at_offset((n, length, length), 1))
