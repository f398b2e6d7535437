"""What detectors of alignment ask of attention from a decoder to an encoder: does it point at the word that a word translates?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headatlas.detector import Measured, Planted
from headatlas.detectors._measures.gold_syntax import best_elsewhere, passing
from headatlas.model.core.view import LayerView
from headatlas.ops.patterns import aimed
from headatlas.task import Batch

# Which step of the decoder attends: the one that writes the word, or the next one, which reads it (Chen et al. 2020).
STEPS = ("as output", "as input")
REACH = 64  # fixed offsets tried on each side


def found_links(layer: LayerView, batch: Batch, target: Tensor, source: Tensor) -> Tensor:
    """[example, head, 2 + offset] share of links (target, source) that a head finds by either of STEPS, and by each fixed offset.

    target, source: [example, link] places in what decoder and encoder read, -1 for none. A link is found where the step attends
    to its source place more than to any other token of the encoder's text (marks["word"] >= 0, so start and end tokens are left out). Links whose
    target word no step writes (the first token of all) do not count. Offsets: from the target's place to the source's, counted in real tokens.
    """
    assert batch.encoder is not None
    device = layer.q.device
    text, real = batch.encoder.marks["word"].to(device) >= 0, batch.mask.to(device)
    target, source = target.to(device), source.to(device)
    most = layer.reduce(
        lambda rows, _: rows.masked_fill(~text[:, None, None, : rows.shape[-1]], -1.0).argmax(-1)
    )  # [example, head, query]
    before = (target - 1).clamp(min=0)
    there = (target > 0) & (source >= 0) & real.gather(1, before)
    count = there.sum(1)

    def share(hits: Tensor) -> Tensor:
        return (hits & there.unsqueeze(1)).sum(-1) / count[:, None]  # 0 / 0 where a text has no link

    places = (before, target.clamp(min=0))
    chosen = [most.gather(2, at[:, None].expand(-1, most.shape[1], -1)) == source[:, None] for at in places]
    shift = _rank(batch.encoder.mask.to(device), source) - _rank(real, target)
    offsets = torch.arange(-REACH, REACH + 1, device=device)
    by_place = share(shift[:, None] == offsets[:, None])  # [example, offset]
    return torch.cat(
        [torch.stack([share(one) for one in chosen], -1), by_place[:, None].expand(-1, most.shape[1], -1)], -1
    )


def _rank(real: Tensor, places: Tensor) -> Tensor:
    """How many real tokens stand before each place."""
    return (real.long().cumsum(1) - 1).gather(1, places.clamp(min=0))


def beside_diagonal(found: Tensor, among: Tensor) -> Tensor:
    """[example, head, 4] of `found_links`: the share by either step, and twice that of the offset that is best over `among`, some of them."""
    hits, offsets = found[..., : len(STEPS)], found[..., len(STEPS) :]
    best = among[:, 0, len(STEPS) :].nanmean(0).nan_to_num(-1.0).argmax()
    return torch.cat([hits, offsets[..., best, None].expand_as(hits)], -1)


def settled(found: Tensor) -> Measured:
    """The step by which a head aligns, chosen on half of the examples, over the other half; beside it the offset that is best there."""
    return best_elsewhere(beside_diagonal(found, found[1::2]))


def words(found: Tensor) -> list[str]:
    """By which step each head aligns, with the share of links found and that of the best offset."""
    return passing(beside_diagonal(found, found), STEPS)


def pointing(batch: Batch, target: Tensor, source: Tensor) -> Planted:
    """The step that writes a word attends to the word that it translates."""
    assert batch.encoder is not None
    return Planted(aimed((*batch.tokens.shape, batch.encoder.tokens.shape[1]), target - 1, source))


def straight(batch: Batch) -> Planted:
    """Every step attends to the source word as far along as itself."""
    assert batch.encoder is not None
    n, length = batch.tokens.shape
    keys = batch.encoder.tokens.shape[1]
    places: Sequence[int] = [min(i, keys - 1) for i in range(length)]
    queries = torch.arange(length).expand(n, -1)
    return Planted(aimed((n, length, keys), queries, torch.tensor(places).expand(n, -1)))
