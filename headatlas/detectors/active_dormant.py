"""Heads that rest on the first token in one kind of text and work in another."""

import torch
from torch import Tensor

from headatlas.detector import Planted, detector
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed, at_offset, mean_of, where_queries
from headatlas.task import Batch
from headatlas.tasks.registers import registers


@detector(head_type="active-dormant-head", task=registers, version=1, minimum_effect=0.15, attention="both")
def active_dormant(layer: LayerView, batch: Batch) -> Tensor:
    """How much attention on the first token changes when the text changes its register: 0 not at all, 1 from none to all.

    Formula: |mean of A[i, 0] over the second half - over the first half|, the halves being passages of two registers
    (code and prose, recipe and novel ...; Guo et al. 2024). Chance: two passages of the same register.
    Examples: 128 (--n 128); on fewer it misses heads that wake for some registers only.
    """
    first = layer.valid_keys.float().argmax(1, keepdim=True)
    sink = layer.columns(first)[..., 0]
    place, middle = (
        torch.arange(layer.n_queries, device=first.device),
        batch.positions["middle"].to(first.device)[:, None],
    )
    before = mean_of(where_queries(sink, (layer.text_positions >= 8) & (place < middle)))
    after = mean_of(
        where_queries(sink, (layer.text_positions >= 0) & (place >= middle + 8))
    )  # a few tokens to notice the change
    return (after - before).abs()


def planted(batch: Batch) -> Planted:
    """Rests on the first token in the first half, attends to itself in the second."""
    n, length = batch.tokens.shape
    pattern = at_offset((n, length, length), 0)
    nowhere = torch.full((n, 1), -1)
    dormant = aimed((n, length, length), nowhere, nowhere)
    second = torch.arange(length) >= batch.positions["middle"][:, None]
    return Planted(torch.where(second[..., None], pattern, dormant))


def look_alike(batch: Batch) -> Planted:
    """A head that always rests on the first token."""
    n, length = batch.tokens.shape
    nowhere = torch.full((n, 1), -1)
    return Planted(aimed((n, length, length), nowhere, nowhere))
