"""An example text for each detector: where the heads it observed look in the first example of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.mining.task_scan import AttentionExample
from headatlas.model import LayerView, Model
from headatlas.task import Batch

STRONGEST = 3  # keys of each query
LEAST = 0.05  # attention that is worth showing
MOST = 10_000  # rows of a detector: of a large model a file would hold millions

Rows = tuple[tuple[int, int, float], ...]  # (query, key, attention)


def attention_examples(
    model: Model, observed: Mapping[str, Sequence[HeadId]], batch: Batch
) -> dict[str, AttentionExample]:
    """For each detector that observed heads the batch's first text and where they look in it; no pass where none did.

    observed: best heads first. The last ones are left out, and counted, where a detector would have more than MOST rows.
    """
    heads = {head for found in observed.values() for head in found}
    if not heads:
        return {}
    one = batch.rows(slice(0, 1))
    rows: dict[HeadId, Rows] = {}

    def strongest(weights: Tensor, _: Tensor) -> Tensor:
        top = weights.float().topk(min(STRONGEST, weights.shape[-1]), dim=-1)
        return torch.stack([top.values, top.indices.float()], -1)  # [example, head, query, STRONGEST, 2]

    def watch(layer: LayerView) -> None:
        mine = [head for head in heads if (head.stack, head.layer) == (layer.stack, layer.index)]
        if not mine:
            return
        top = layer.reduce(strongest)[0]
        for head in mine:
            weights, keys = top[head.head].unbind(-1)
            rows[head] = tuple(
                (query, int(key), round(float(weight), 3))
                for query in range(layer.n_queries)
                for weight, key in zip(weights[query], keys[query], strict=True)
                if weight >= LEAST
            )

    model.forward(one, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    tokens = {head.stack: tuple(model.tokenizer.pieces(one.side(head.stack).tokens[0].tolist())) for head in heads}
    return {name: _example(tokens[found[0].stack], found, rows) for name, found in observed.items() if found}


def _example(tokens: tuple[str, ...], observed: Sequence[HeadId], rows: Mapping[HeadId, Rows]) -> AttentionExample:
    """The best of the observed heads: as many as MOST rows are enough for, and at least one.

    A text that encoder and decoder read in their own ways is shown as the first head's stack reads it.
    """
    kept: dict[HeadId, Rows] = {}
    n_rows = 0
    for head in observed:
        if head.stack != observed[0].stack:
            continue
        n_rows += len(rows[head])
        if kept and n_rows > MOST:
            break
        kept[head] = rows[head]
    return AttentionExample(tokens, kept, left_out=len(observed) - len(kept))
