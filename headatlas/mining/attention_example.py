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

    Of heads from decoder to encoder: the encoder's text with the decoder's behind it, and where the latter looks in the former.

    observed: best heads first. The last ones are left out, and counted, where a detector would have more than MOST rows.
    """
    heads = {head for found in observed.values() for head in found}
    if not heads:
        return {}
    one = batch.rows(slice(0, 1))
    rows: dict[HeadId, Rows] = {}
    sources = 0 if one.encoder is None else int(one.encoder.mask.sum())

    def strongest(weights: Tensor, _: Tensor) -> Tensor:
        top = weights.float().topk(min(STRONGEST, weights.shape[-1]), dim=-1)
        return torch.stack([top.values, top.indices.float()], -1)  # [example, head, query, STRONGEST, 2]

    def watch(layer: LayerView) -> None:
        mine = [head for head in heads if (head.stack, head.layer) == (layer.stack, layer.index)]
        if not mine:
            return
        top = layer.reduce(strongest)[0]
        # From decoder to encoder: both texts are shown as one, the encoder's in front.
        first, n = (sources, int(one.mask.sum())) if layer.stack == "cross" else (0, layer.n_queries)
        for head in mine:
            weights, keys = top[head.head].unbind(-1)
            rows[head] = tuple(
                (first + query, int(key), round(float(weight), 3))
                for query in range(n)
                for weight, key in zip(weights[query], keys[query], strict=True)
                if weight >= LEAST
            )

    model.forward(one, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    tokens = {stack: tuple(model.tokenizer.pieces(_ids(one, stack))) for stack in {head.stack for head in heads}}
    return {name: _example(tokens[found[0].stack], found, rows) for name, found in observed.items() if found}


def _ids(one: Batch, stack: str) -> list[int]:
    """The text that a stack's heads read; of cross-attention what its keys stand for, and behind it what its queries do."""
    if stack != "cross" or one.encoder is None:
        found: list[int] = one.side(stack).tokens[0].tolist()
        return found
    return [*one.encoder.tokens[0][one.encoder.mask[0]].tolist(), *one.tokens[0][one.mask[0]].tolist()]


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
