"""Heads that attend to the first word of a relation and write in favour of the second."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.detectors._measures.relation_index import attended, shares
from headatlas.model import LayerView, Model
from headatlas.task import Batch
from headatlas.tasks.semantic_dependencies import semantic_dependencies
from headatlas.tasks.semantic_relations import semantic_relations


# A twentieth of all that the head raises among the text's words, of which there are some thirty.
@model_detector(
    head_type="semantic-induction-head",
    task=semantic_relations,
    also=(semantic_dependencies,),
    version=1,
    minimum_effect=0.05,
    needs=("unembedding",),
    verdict_positions="end",
)
def semantic_induction(model: Model, batch: Batch) -> Measured:
    """Relation index, the second word's share in all that the head raises when it attends to the first: 0 nothing, 1 that word alone.

    Formula: max(0, v_o - m) / sum over the different tokens t of the text of max(0, v_t - m), v the logits that the OV circuit writes at the
    relation's first word s, m their mean over these tokens, o the second word; 0 unless a later token gives s a tenth of its
    attention (Ren et al. 2024). Chance: the same for the three words of the list that belong to
    other words in the same relation; on `semantic-dependencies` for three other words of the sentence. Differs: the paper's exact normalisation was not at hand; triples are of a list of words and a word, in three
    relations, where the paper takes AGENDA's abstracts; dependencies are those of made sentences.
    """
    own: list[Tensor] = []
    others: list[Tensor] = []

    def watch(layer: LayerView) -> None:
        places = torch.cat([batch.positions["tail"].reshape(-1, 1), batch.positions["other"]], 1)
        key = batch.positions["head_last"]
        found = shares(layer, batch, key, places) * attended(layer, key)[..., None]
        own.append(found[..., 0].cpu())
        others.append(found[..., 1:].nanmean(-1).cpu())

    with torch.no_grad():
        model.forward(batch, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    return Measured(torch.cat(own, 1), torch.cat(others, 1))
