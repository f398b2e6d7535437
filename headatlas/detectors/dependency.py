"""Heads that attend from a word to the word it depends on, or back, for some relations."""

import torch
from torch import Tensor

from headatlas.detector import Measured, Planted, detector
from headatlas.detectors._measures.gold_syntax import best_elsewhere, maps_of, passing, to_words
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import at_offset
from headatlas.task import Batch
from headatlas.tasks._sentences import RELATIONS
from headatlas.tasks.syntax import syntax
from headatlas.tasks.translation import translation
from headatlas.treebanks.dependencies import DIRECTIONS, predictions

WAYS = DIRECTIONS[:2]
NAMES = [f"{relation} {way}" for relation in RELATIONS for way in WAYS]


@detector(head_type="syntactic-head", task=syntax, also=(translation,), version=1, minimum_effect=0.1, attention="both")
def dependency(layer: LayerView, batch: Batch) -> Tensor:
    """Share of a relation's edges that a head finds: 0 none, 1 all, for the relation and direction that it exceeds chance in most.

    Formula: an edge is found "to head" where the dependent attends to its head more than to any other word of the sentence, "from
    head" where no other word attends to the dependent more than its head does (Clark et al. 2019; Voita et al. 2019 ask for 10
    points above the offset). The relation is chosen on one half of the examples and scored on the other; the line of a head
    names all that it follows. Chance: the best fixed offset of that relation, "always the next word", over the same sentences;
    of those that the attention can see, where it is causal.
    """
    gold = batch.labels["heads"].to(layer.q.device)
    edges = _edges(batch).to(gold.device)
    count = edges.sum(1)[:, None, :, None]  # [example, 1, relation, 1]
    hits = torch.einsum("ehwd,ewr->ehrd", predictions(maps_of(layer, batch), gold)[..., :2], edges)
    offsets = torch.tensor(batch.facts["offsets"]["causal" if layer.causal else "bidirectional"], device=gold.device)
    shift = gold - torch.arange(gold.shape[1], device=gold.device)
    there = torch.einsum("ewrd,ewr->erd", (shift[:, :, None, None] == offsets).float(), edges)[:, None]
    both = torch.stack([hits, there.expand_as(hits)], 2) / count[:, :, None]  # 0 / 0 where a text has no such edge
    return both.flatten(2)


def _edges(batch: Batch) -> Tensor:
    """[example, word, relation] 1 where a word depends on another by a relation."""
    relation = batch.labels["relation"]
    known = (relation >= 0) & (batch.labels["heads"] >= 0)
    return torch.nn.functional.one_hot(relation.clamp(min=0), len(RELATIONS)).float() * known[..., None]


def settle(found: Tensor) -> Measured:
    """The relation that a head exceeds the offset in most, chosen on half of the examples."""
    return best_elsewhere(found)


def told(found: Tensor) -> list[str]:
    """The relations that each head follows, with the share of edges found and that of the best offset."""
    return passing(found, NAMES)


def works_at(batch: Batch, words: str) -> Tensor | None:
    """The pieces of the dependents of the relations that `words` (of `told`) name: [example, pos]."""
    said = [part.rpartition(" to head")[0] or part.rpartition(" from head")[0] for part in words.split(", ")]
    numbers = [i for i, relation in enumerate(RELATIONS) if relation in said]
    if not numbers:
        return None
    labels, word = batch.labels, batch.marks["word"]
    mine = torch.isin(labels["relation"], torch.tensor(numbers)) & (labels["heads"] >= 0)
    return mine.gather(1, word.clamp(min=0)) & (word >= 0)


def planted(batch: Batch) -> Planted:
    """Every word attends to the word it depends on."""
    return to_words(batch, batch.labels["heads"])


def look_alike(batch: Batch) -> Planted:
    """A previous-token head, which finds the head of many a word by place alone."""
    n, length = batch.tokens.shape
    return Planted(at_offset((n, length, length), 1))
