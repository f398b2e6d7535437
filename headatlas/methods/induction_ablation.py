"""Two ways to take induction from heads: their input averaged, and their attention to what followed a token before blocked.

Crosbie & Shutova 2024. Averaging the input of an attention block for some of its heads makes their queries, keys and values, and so their pattern, the
same for every prompt: stronger than averaging what a head writes. Blocking takes only the induction pattern and leaves all other attention.
Both give edits for `Model.forward`, `Model.edited` and the methods that take edits.
"""

from __future__ import annotations

import torch

from headatlas.edits import Block, OnHeads, Resample, collect
from headatlas.errors import BadInput
from headatlas.heads import Heads
from headatlas.model import LayerView, Model
from headatlas.ops.types import LayerKey
from headatlas.task import Batch


@torch.no_grad()
def averaged_inputs(model: Model, heads: Heads, reference: Batch) -> Resample:
    """Heads give what they give where their block reads, at each position, its mean input over the prompts of `reference`.

    reference: prompts of one length, which the prompts that the edit is used on must have too. Queries, keys and values of the mean input are the means
    of theirs, since projections and rotations are linear; models that norm queries and keys (Gemma 3, Qwen 3) do so before the mean
    here. A head that shares keys with others is changed alone, as the paper does: what it gives is computed apart and put in its place. Raises BadInput.
    """
    if not bool(reference.mask.all()):
        raise BadInput(
            "Averages by position need prompts of one length.",
            "Choose a task whose prompts have one, such as repetition.",
        )
    edits = [
        Resample(
            model.heads,
            {
                place: x.mean(0, keepdim=True)
                for place, x in collect(model, reference, OnHeads(model.heads, component=component)).items()
            },
            component=component,
        )
        for component in ("q", "k", "v")
    ]
    found: dict[LayerKey, torch.Tensor] = {}

    def watch(layer: LayerView) -> None:
        found[layer.stack, layer.index] = layer.z.detach().clone()

    one = reference.rows(torch.arange(1))
    model.forward(one, watch=watch, edits=edits, logit_positions=torch.zeros(1, dtype=torch.long))
    return Resample(heads, found)


def pattern_knockout(heads: Heads, batch: Batch) -> list[Block]:
    """Keep heads from attending from any token to those that followed its earlier copies, as if masked before the softmax.

    One edit for each position that has such a key in some prompt. A token is never kept from itself. The paper blocks all that followed up to the label,
    and for word pairs earlier words of the same class too; here it is the next token of the same one.
    """
    rows = [
        [one if real else None for one, real in zip(tokens, mask, strict=True)]
        for tokens, mask in zip(batch.tokens.tolist(), batch.mask.tolist(), strict=True)
    ]
    edits = []
    for query in range(batch.tokens.shape[1]):
        keys = [
            [key + 1 for key in range(query - 1) if row[key] == row[query]] if row[query] is not None else []
            for row in rows
        ]
        width = max(map(len, keys))
        if width == 0:
            continue
        padded = torch.tensor([own + [-1] * (width - len(own)) for own in keys])
        where = torch.tensor([[query] if own else [-1] for own in keys])
        edits.append(Block(heads, padded, queries=where))
    return edits
