"""Sinks as Fesser et al. diagnose them: whether a head rests on one token, what that token's value weighs, what rank its writes have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from headatlas.detector import Measured
from headatlas.model import LayerView
from headatlas.model.runs.shared_pass import Watch
from headatlas.ops.types import LayerKey
from headatlas.task import Batch

HALF, ROUTED = 0.5, 0.9  # attention that rests on a token, and the share of all queries of which it does
NEGLIGIBLE, ORDINARY = (
    0.2,
    0.5,
)  # a value's norm over the mean of the others: at most, of NOP sinks; at least, of broadcast sinks
LOW_RANK = 1.5  # stable rank of a head's writes: at most, of broadcast sinks

Rule = Callable[["Sinks"], tuple[Tensor, Tensor]]


class Sinks:
    """What the diagnostics of sinks ask of one layer.

    mine [example, head, key] bool: the token with most attention on average over all queries; routed [example, head]: the share of all
    queries that give HALF of their attention or more to it; rests [example, head] bool: whether it is a sink, of ROUTED of them;
    others [example, head, key] bool: the other tokens. "All queries" are those of the text, those before the sink as well: they
    cannot see it, so that only sinks in its first tenth count in decoders. The methods take `of` [example, head] bool, for n of these.
    """

    def __init__(self, layer: LayerView) -> None:
        layer.attention.require_linear()
        self._layer = layer
        real = layer.valid_queries
        pattern = layer.pattern.float().masked_fill(~real[:, None, :, None], 0.0)
        sink = pattern.sum(2).argmax(-1, keepdim=True)  # [example, head, 1]
        on_it = pattern.gather(3, sink[:, :, None].expand(-1, -1, pattern.shape[2], -1))[..., 0]
        self.routed = (on_it >= HALF).sum(-1) / real.sum(1)[:, None]
        self.rests = self.routed >= ROUTED
        keys = layer.valid_keys[:, None].expand(*sink.shape[:2], -1)
        self.mine = torch.zeros_like(keys).scatter(2, sink, True)
        self.others = keys & ~self.mine

    @functools.cached_property
    def _turn(self) -> Tensor:
        """[head, d_value, d] what has the lengths and angles of W_O, with the gain of a norm behind the block, in few dimensions."""
        weight = self._layer.W_O.float()
        if (gain := self._layer.attention.post_gain) is not None:
            weight = weight * gain.float()
        return torch.linalg.qr(weight.mT, mode="r").R.mT

    def _written(self, x: Tensor, of: Tensor) -> Tensor:
        """x [n, token, d_value] of these heads through their W_O: [n, token, d]."""
        return torch.bmm(x.float(), self._turn.expand(len(of), -1, -1, -1)[of])

    def values(self, of: Tensor) -> Tensor:
        """[n, key, d] u = v W_O of each token, up to a rotation."""
        return self._written(self._layer.repeat(self._layer.v)[of], of)

    def ratios(self, of: Tensor) -> Tensor:
        """[n, key] the norm |u| of each token's value over the mean of the other tokens', 0 on padding."""
        real = (self.mine | self.others)[of]
        norms = self.values(of).norm(dim=-1).masked_fill(~real, 0.0)
        rest = (norms.sum(-1, keepdim=True) - norms) / (real.sum(-1, keepdim=True) - 1).clamp(min=1)
        return norms / rest.clamp(min=1e-12)

    def ratio(self, of: Tensor) -> Tensor:
        """[n] that of the sink."""
        return (self.ratios(of) * self.mine[of]).sum(-1)

    def write_rank(self, of: Tensor) -> Tensor:
        """[n] the stable rank of what the heads write at all tokens of the text."""
        written = self._written(self._layer.z.transpose(1, 2)[of], of)
        real = self._layer.valid_queries[:, None].expand(-1, of.shape[1], -1)[of]
        return stable_rank(written.masked_fill(~real[..., None], 0.0))

    def value_rank(self, of: Tensor) -> Tensor:
        """[n] the stable rank of the values of the tokens that are no sink: what they would write who rested nowhere."""
        return stable_rank(self.values(of).masked_fill(~self.others[of][..., None], 0.0))


def stable_rank(rows: Tensor) -> Tensor:
    """|X|_F^2 / s^2, s the largest singular value of X [n, row, d]: [n], 1 where all rows lie on a line; infinite where X is 0."""
    squares = torch.linalg.eigvalsh((rows.mT @ rows).double()).clamp(min=0)
    return torch.where(squares[..., -1] > 0, squares.sum(-1) / squares[..., -1], torch.inf).float()


class SinkShare:
    """In which texts each head is a sink of one kind, and how often chance would say so, from passes over a batch's parts.

    rule(sinks) -> (whether it is one, chance), [example, head] each.
    """

    metric, slopes = None, False

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._found: list[tuple[Tensor, Tensor]] = []  # of each part, [example, head]
        self._layers: list[tuple[Tensor, Tensor]] = []  # of the part that is read now

    def looking(self, part: Batch) -> AbstractContextManager[Watch]:
        return nullcontext(self._watch)

    def _watch(self, layer: LayerView) -> None:
        found, chance = self._rule(Sinks(layer))
        self._layers.append((found.float().cpu(), chance.float().cpu()))

    def passed(self, part: Batch, logits: Tensor, slopes: Mapping[LayerKey, Tensor]) -> None:
        found, chance = (torch.cat(each, 1) for each in zip(*self._layers, strict=True))
        self._found.append((found, chance))
        self._layers = []

    def measured(self) -> Measured:
        found, chance = (torch.cat(each) for each in zip(*self._found, strict=True))
        return Measured(found, chance)
