"""The relation index of Ren et al. 2024 (semantic induction heads): what a head writes for the second word of a relation when it attends to the first.

For a pair (s, o) of words in one text: of all that the head's OV circuit, attending to s, raises among the text's tokens
beyond their mean, the share that goes to o. Pairs are dependencies of a treebank, or triples of a knowledge graph. Pairs whose
first word no later token attends to count 0, since OV circuits alone write in favour of much that they never read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.model import LayerView
from headatlas.task import Batch

LEAST = 0.1  # of a later token's attention


def shares(layer: LayerView, batch: Batch, key: Tensor, places: Tensor) -> Tensor:
    """[example, head, n] of what each head raises when it attends to key [example], the shares of the tokens at places [example, n].

    max(0, v_t - m) over its sum over the different tokens of the text, m the mean of v over these; NaN where places are negative.
    """
    device = layer.q.device
    tokens = batch.tokens.to(device)
    v = layer.ov_logits(key[:, None].to(device), tokens)[:, :, 0].float()  # [example, head, token]
    # Of a token that stands twice the first counts.
    same = (tokens[:, :, None] == tokens[:, None]) & batch.mask.to(device)[:, None]
    counts = (batch.mask.to(device) & (same.float().argmax(-1) == torch.arange(tokens.shape[1], device=device)))[
        :, None
    ]
    mean = (v * counts).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True)
    raised = (v - mean).clamp(min=0)
    share = raised / (raised * counts).sum(-1, keepdim=True).clamp(min=1e-12)
    wanted = places.to(device)
    found = share.gather(-1, wanted.clamp(min=0)[:, None].expand(-1, share.shape[1], -1))
    return found.masked_fill(wanted[:, None] < 0, float("nan"))


def attended(layer: LayerView, key: Tensor) -> Tensor:
    """[example, head] 1 where some later token gives key [example] LEAST of its attention at least, else 0."""
    key = key.to(layer.q.device)
    seen = layer.columns(key[:, None])[..., 0].float().nan_to_num(0.0)  # [example, head, query]
    later = (torch.arange(seen.shape[-1], device=seen.device) > key[:, None]) & layer.valid_queries
    return ((seen * later[:, None]).amax(-1) >= LEAST).float()
