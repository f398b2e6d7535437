"""Heads that add next to nothing to the residual stream, wherever they attend."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.edits.collect import pieces
from headatlas.model import LayerView, Model
from headatlas.model.runs.shared_pass import Alongside, Watch, alone
from headatlas.ops.patterns import mean_of, where_queries
from headatlas.ops.types import LayerKey
from headatlas.task import Batch
from headatlas.tasks.prose import prose


@model_detector(head_type="inactive-head", task=prose, version=1, minimum_effect=0.75)
def inactive(model: Model, batch: Batch) -> Measured:
    """How much less a head writes than the heads of its layer do on average: 0 as much or more, 1 nothing.

    Formula: 1 - the norm of its write z W_O, averaged over the tokens behind the first, over the mean of that among the heads of its
    layer, at least 0 (Sandoval-Segura et al. 2025, average head output norm relative to the layer, AHON LN). Chance: 0, a head
    that writes as much as the mean of its layer. Differs: the paper chooses a threshold for each model by what switching heads
    off costs on MMLU; here a quarter of the layer's mean is the bar, and the verdict asks what the head's own removal costs:
    refuted is what is expected of a head that does nothing.
    """
    found: Measured = alone(model, pieces(batch), _Loudness())
    return found


class _Loudness:
    """How much less each head writes than its layer, layer after layer of passes over a batch's parts."""

    metric, slopes = None, False

    def __init__(self) -> None:
        self.found: list[Tensor] = []  # [example, head] of each part
        self.layers: list[Tensor] = []  # of the part that is read now

    def _watch(self, layer: LayerView) -> None:
        loud = mean_of(where_queries(_norms(layer), layer.text_positions >= 1))
        self.layers.append((1 - loud / loud.mean(1, keepdim=True)).clamp(min=0).cpu())

    def looking(self, part: Batch) -> AbstractContextManager[Watch]:
        return nullcontext(self._watch)

    def passed(self, part: Batch, logits: Tensor, slopes: Mapping[LayerKey, Tensor]) -> None:
        self.found.append(torch.cat(self.layers, 1))
        self.layers = []

    def measured(self) -> Measured:
        values = torch.cat(self.found)
        return Measured(values, torch.zeros_like(values))


def alongside(model: Model, batch: Batch) -> Alongside:
    """The same from passes that others make."""
    return _Loudness()


def _norms(layer: LayerView) -> Tensor:
    """[example, head, position] the norm of each head's write, without forming the writes: |z W_O|^2 = z (W_O W_O^T) z^T."""
    layer.attention.require_linear()
    out = layer.W_O.float()
    gram = torch.einsum("hdm,hem->hde", out, out)
    z = layer.z.float()
    return torch.einsum("nphd,hde,nphe->nhp", z, gram, z).clamp(min=0).sqrt()
