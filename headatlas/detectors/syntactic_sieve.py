"""Heads that put more attention than others on words which theirs is syntactically related to."""

import torch
from torch import Tensor

from headatlas.detector import Measured, Planted, detector
from headatlas.detectors._measures.gold_syntax import best_elsewhere, maps_of, passing, to_words
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import at_offset
from headatlas.task import Batch
from headatlas.tasks._sentences import RELATIONS
from headatlas.tasks.syntax import syntax
from headatlas.treebanks.sieve import SYNTACTIC, THRESHOLD
from headatlas.treebanks.words import seen_keys


@detector(head_type="syntactic-head", task=syntax, version=1, minimum_effect=0.05, attention="both")
def syntactic_sieve(layer: LayerView, batch: Batch) -> Tensor:
    """Attention from a word to the one it depends on as subject, object, adjective or adverb, or back: 0 none, 1 all.

    Formula: mean over these edges of A[dependent, head], or of A[head, dependent] where that is more on one half of the examples
    (Pande et al. 2021: their sieve bias score is this times the number of tokens over that of the target's pieces). Chance: three
    times what uniform attention puts there, the score of 3 that the paper's test asks a head to exceed. Edges to the right
    are left out where attention is causal.
    """
    maps = maps_of(layer, batch)
    heads = batch.labels["heads"].to(maps.device)
    wanted = torch.tensor([RELATIONS.index(one) for one in SYNTACTIC], device=maps.device)
    edge = (heads >= 0) & torch.isin(batch.labels["relation"].to(maps.device), wanted)
    n = heads.shape[1]
    own = torch.arange(n, device=maps.device).expand_as(heads)
    word = batch.marks["word"].to(maps.device)
    pieces = (word[:, None, :] == torch.arange(n, device=maps.device)[:, None]).float()  # [example, word, pos]
    size = pieces.sum(-1)
    seen = (pieces @ seen_keys(layer).sum(-1).float()[..., None])[..., 0] / size.clamp(
        min=1
    )  # keys of a word's queries
    found = []
    for query, key in ((own, heads.clamp(min=0)), (heads.clamp(min=0), own)):
        usable = edge & (key < query) if layer.causal else edge
        count = usable.sum(1)[:, None]
        at = (query * n + key)[:, None].expand(-1, maps.shape[1], -1)
        mass = (maps.flatten(2).gather(2, at) * usable[:, None]).sum(-1) / count
        uniform = THRESHOLD * size.gather(1, key) / seen.gather(1, query).clamp(min=1) * usable
        found.append((mass, (uniform.sum(1)[:, None] / count).clamp(max=1.0).expand_as(mass)))
    return torch.stack([found[0][0], found[1][0], found[0][1], found[1][1]], -1)


def settle(found: Tensor) -> Measured:
    """The better direction, chosen on half of the examples."""
    return best_elsewhere(found)


def told(found: Tensor) -> list[str]:
    """In which direction a head exceeds three times uniform attention, with both masses."""
    return passing(found, ("to head", "from head"))


def planted(batch: Batch) -> Planted:
    """Every word attends to the word it depends on."""
    return to_words(batch, batch.labels["heads"])


def look_alike(batch: Batch) -> Planted:
    """A head that attends eight tokens back, to whatever stands there."""
    n, length = batch.tokens.shape
    return Planted(at_offset((n, length, length), 8))
