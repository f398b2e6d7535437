"""Heads whose attention can be cut to a short span without the loss noticing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.model import LayerView, Model
from headatlas.model.runs.shared_pass import Alongside, Watch, alone
from headatlas.ops.types import LayerKey
from headatlas.task import Batch, next_token_loss
from headatlas.tasks.prose import prose

AT_ONCE = 2048  # tokens: patterns of all layers are kept beside what the gradient needs
TOLERANCE = 0.05  # of a head's whole influence on the loss that may lie beyond its span


@model_detector(head_type="local-context-head", task=prose, version=1, minimum_effect=0.5)
def attention_span(model: Model, batch: Batch) -> Measured:
    """How short the span is to which a head's attention can be cut: 0 the whole text, 1 the current token alone.

    Formula: 1 - (s - 1) / (T - 1), where T is the length of the text and s the least number of last tokens, the current one
    included, beyond which at most 5% of the influence on the loss lies. The influence of a key is what masking it and giving the rest of the row the whole weight changes, to
    first order: |A[i, j] (G[i, j] - sum over n of A[i, n] G[i, n]) / (1 - A[i, j])| with G the slope of the loss in A, summed
    over queries by distance (Fu et al. 2024). The first token stays visible and does not count. Chance: the same
    where each query's influence is spread evenly over the keys that it sees. Differs: the paper chooses spans for all heads
    together, in blocks of 64 tokens of texts of thousands and under a budget of memory, on answers that the model wrote.
    """
    parts = batch.chunks(max(1, AT_ONCE // batch.tokens.shape[1]))
    found: Measured = alone(model, parts, _Spans())
    return found


class _Spans:
    """(score, chance) of each head from passes over a batch's parts: what each layer showed meets the slopes of the loss."""

    metric, slopes = next_token_loss, True

    def __init__(self) -> None:
        self.found: list[tuple[Tensor, Tensor]] = []  # [example, head] of each part
        self.seen: dict[LayerKey, tuple[Tensor, Tensor]] = {}  # of the part that is read now

    def _watch(self, layer: LayerView) -> None:
        self.seen[layer.stack, layer.index] = layer.pattern.float(), layer.repeat(layer.v).float()

    def looking(self, part: Batch) -> AbstractContextManager[Watch]:
        return nullcontext(self._watch)

    def passed(self, part: Batch, logits: Tensor, slopes: Mapping[LayerKey, Tensor]) -> None:
        found = []
        for key in list(self.seen):
            effect = _masking_effects(*self.seen.pop(key), slopes[key]).abs()
            found.append([_shortness(profile, part).cpu() for profile in _profiles(effect, part)])
        values, control = (torch.cat(layers, 1) for layers in zip(*found, strict=True))
        self.found.append((values, control))

    def measured(self) -> Measured:
        return Measured(*(torch.cat([one[i] for one in self.found]) for i in range(2)))


def alongside(model: Model, batch: Batch) -> Alongside:
    """The same from passes that others make."""
    return _Spans()


def _profiles(effect: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sums of effects [example, head, query, key] by distance [example, head, distance]: as they are, and spread evenly.

    Spread evenly: each query's whole effect over the keys that it sees. The first token of the text is left out.
    """
    mask = batch.mask.to(effect.device)
    place = torch.arange(effect.shape[-1], device=effect.device)
    distance = place[:, None] - place
    seen = (mask & (place > mask.float().argmax(1)[:, None]))[:, None, :] & (distance >= 0) & mask[:, :, None]
    effect = effect.masked_fill(~seen[:, None], 0.0)
    share = effect.sum(-1) / seen.sum(-1).clamp(min=1)[:, None]  # [example, head, query] of each key that it sees
    return _by_distance(effect), torch.einsum("ehq,eqd->ehd", share, _backwards(seen).to(share.dtype))


def _masking_effects(weights: Tensor, values: Tensor, slope: Tensor) -> Tensor:
    """[example, head, query, key] first-order change of the loss where a key is masked and its row is normed again.

    weights: [example, head, query, key]; values: [example, head, key, d_value]; slope: [example, position, head, d_value] of the
    loss in z. A key lends A[i, j] v_j to z_i, so that the slope in A[i, j] is the product of v_j with that in z_i.
    """
    rise = torch.einsum("eqhd,ehkd->ehqk", slope.float(), values)
    mean = (weights * rise).sum(-1, keepdim=True)
    return -weights * (rise - mean) / (1 - weights).clamp(min=1e-6)


def _by_distance(effect: Tensor) -> Tensor:
    """[..., distance] sums over queries of [..., query, key], in which keys ahead of a query have nothing."""
    return _backwards(effect).sum(-2)


def _backwards(x: Tensor) -> Tensor:
    """[..., query, distance] of [..., query, key]: what lies so many keys back, 0 before the first key.

    In rows that are twice as long and then read as one shorter, each row begins one place later than the one before it.
    """
    n = x.shape[-1]
    wide = torch.nn.functional.pad(x.flip(-1), (0, n)).flatten(-2)
    return wide[..., : n * (2 * n - 1)].unflatten(-1, (n, 2 * n - 1))[..., n - 1 :]


def _shortness(profile: Tensor, batch: Batch) -> Tensor:
    """1 - (span - 1) / (length - 1) of profiles [example, head, distance]; NaN where a head has no influence."""
    whole = profile.sum(-1, keepdim=True)
    beyond = whole - profile.cumsum(-1)  # what lies more than d tokens back
    span = (beyond > TOLERANCE * whole).sum(-1) + 1
    length = batch.mask.sum(1).to(span.device)[:, None]
    shortness = 1 - (span - 1) / (length - 1).clamp(min=1)
    return shortness.masked_fill(whole[..., 0] <= 0, torch.nan)
