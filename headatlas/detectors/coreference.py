"""Heads that attend from a pronoun to the name it stands for."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.detectors._measures.gold_syntax import maps_of, to_words
from headatlas.model.core.view import LayerView
from headatlas.task import Batch
from headatlas.tasks.syntax import syntax


# The grammar has eight names of each sex: a head that prefers names at random is right on 0.5 +- 0.1 of the pairs for good.
@detector(head_type="coreference-head", task=syntax, version=1, minimum_effect=0.3, attention="both")
def coreference(layer: LayerView, batch: Batch) -> Tensor:
    """Share of pronouns that attend more to the name they stand for than to the other one: 0 none, 1 all.

    Formula: mean over the pronouns of a text ("she", "he") of A[pronoun, antecedent] > A[pronoun, rival], the rival a name of
    the other sex in the same sentence (Clark et al. 2019: of the earlier mentions the one attended to most is the guess).
    Chance: the nearest earlier mention.
    """
    maps, places = maps_of(layer, batch), _places(batch)
    anaphor, antecedent, rival = (part.to(maps.device).clamp(min=0) for part in places)
    n = maps.shape[-1]

    def weight(key: Tensor) -> Tensor:
        return maps.flatten(2).gather(2, (anaphor * n + key)[:, None].expand(-1, maps.shape[1], -1))

    return _mean((weight(antecedent) > weight(rival)).float(), places[0])


def control(layer: LayerView, batch: Batch) -> Tensor:
    """How often the nearest mention is the right one, the same for all heads: [example, head]."""
    anaphor, antecedent, rival = _places(batch)
    nearest = (antecedent > rival).float()[:, None].expand(-1, layer.n_heads, -1)
    return _mean(nearest.to(layer.q.device), anaphor)


def _places(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return batch.labels["anaphor"], batch.labels["antecedent"], batch.labels["rival"]


def _mean(right: Tensor, anaphor: Tensor) -> Tensor:
    known = (anaphor >= 0).to(right.device)[:, None]
    return (right * known).sum(-1) / known.sum(-1)  # 0 / 0 where a text has no pronoun


def planted(batch: Batch) -> Planted:
    """Every pronoun attends to its antecedent."""
    return to_words(batch, _wanted(batch, batch.labels["antecedent"]))


def look_alike(batch: Batch) -> Planted:
    """A head that attends from a pronoun to the nearest name."""
    _, antecedent, rival = _places(batch)
    return to_words(batch, _wanted(batch, torch.maximum(antecedent, rival)))


def _wanted(batch: Batch, keys: Tensor) -> Tensor:
    """[example, word] the word among keys [example, n] that stands at a pronoun, -1 elsewhere."""
    anaphor = batch.labels["anaphor"]
    found = torch.full_like(batch.labels["heads"], -1)
    example, place = (anaphor >= 0).nonzero(as_tuple=True)
    found[example, anaphor[example, place]] = keys[example, place]
    return found
