"""Heads that spread over the words of their own sentence."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import at_offset, mean_of, where_queries
from headatlas.task import Batch
from headatlas.tasks.syntax import syntax

FEWEST = 4  # visible tokens of a block
SHIFT = 5  # tokens: about half of one of the grammar's sentences


@detector(head_type="block-head", task=syntax, version=1, minimum_effect=0.1, attention="both")
def block(layer: LayerView, batch: Batch) -> Tensor:
    """Attention on the token's own sentence, spread over it: 0 none, or all on one token, 1 all of it evenly.

    Formula: mean over queries with four visible tokens of their own sentence or more of the mass there times the entropy of
    that part over the entropy of an even one (after Pande et al. 2021, whose role asks that a pair's own sentence gets much,
    times the entropy of the row). Chance: the same with all borders between sentences moved by five tokens, so that a head
    which spreads over its neighbourhood does not count. Differs: sentences of a text, not two of a pair.
    """
    return _spread(layer, batch.marks["sentence"])


def control(layer: LayerView, batch: Batch) -> Tensor:
    """The same with the borders moved: [example, head]."""
    of = batch.marks["sentence"]
    return _spread(layer, torch.nn.functional.pad(of, (SHIFT, 0), value=-1)[:, : of.shape[1]])


def _spread(layer: LayerView, of: Tensor) -> Tensor:
    of = of.to(layer.q.device)
    own = (of[:, :, None] == of[:, None, :]) & (of >= 0)[:, :, None] & layer.valid_keys[:, None]
    own = own.tril() if layer.causal else own
    size = own.sum(-1)
    inside = layer.pattern.float() * own[:, None]
    mass = inside.sum(-1)
    share = inside / mass.clamp(min=1e-9)[..., None]
    entropy = torch.special.entr(share).sum(-1) / size.clamp(min=2).float().log()[:, None]
    return mean_of(where_queries((mass * entropy).clamp(max=1.0), (size >= FEWEST) & layer.valid_queries))


def planted(batch: Batch) -> Planted:
    """Every token spreads over what it sees of its sentence."""
    of = batch.marks["sentence"]
    own = ((of[:, :, None] == of[:, None, :]) & (of >= 0)[:, :, None]).tril().float()
    own[:, :, 0] += (own.sum(-1) == 0).float()
    return Planted(own / own.sum(-1, keepdim=True))


def look_alike(batch: Batch) -> Planted:
    """A local head, which spreads over its last eight tokens wherever a sentence ends."""
    n, length = batch.tokens.shape
    return Planted(torch.stack([at_offset((n, length, length), k) for k in range(8)]).mean(0))
