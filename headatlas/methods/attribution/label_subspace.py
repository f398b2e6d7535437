"""Task subspace logit attribution: what each head writes within the subspace that the labels of a task span. Yang et al. 2025.

The subspace is spanned by the directions that the labels' logits are read from: W_U's columns through the final norm's gain, so
that products with a head's write are its direct effects on logits, which are checked to add up (`direct_logit_attribution`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.methods.direct_logit_attribution import Toward, effects_along
from headatlas.model import Model
from headatlas.model.runs.residual_stream import logit_direction
from headatlas.ops.memo import once
from headatlas.ops.types import Array
from headatlas.task import Batch

FLAT = 1e-6  # a direction of the labels that is this small beside the largest is rounding: some labels are one


@dataclass(frozen=True)
class LabelSubspace:
    """Coordinates in an orthonormal basis of the labels' subspace, at the end of each prompt.

    heads: [example, head, dimension] what each head writes. stream: [example, dimension] the whole stream. Both are multiplied by
    the final norm's scale in this run. right: [example, dimension] the right label's direction minus the mean of the others'.
    """

    heads: Array
    stream: Array
    right: Array

    @property
    def lengths(self) -> Array:
        """[example, head] length of each head's write within the subspace."""
        found: Array = np.linalg.norm(self.heads, axis=-1)
        return found


def shown_labels(batch: Batch) -> Tensor:
    """[example, n] ids of all labels of a prompt: its answer, then the wrong ones."""
    return torch.cat([batch.answer.reshape(-1, 1), batch.wrong.reshape(len(batch), -1)], 1)


def label_subspace(model: Model, batch: Batch, labels: Tensor) -> LabelSubspace:
    """Writes of a batch's heads at positions["end"] within the span of labels [example, n], the right one first; computed once for a batch.

    Raises UnsupportedModel for a model without a read-out, or whose parts do not add up.
    """
    return once(model, batch, "label subspace", lambda: _label_subspace(model, batch, labels))


@torch.no_grad()
def _label_subspace(model: Model, batch: Batch, labels: Tensor) -> LabelSubspace:
    n = labels.shape[1]
    directions = torch.stack([logit_direction(model, labels, one.expand(len(labels), -1)) for one in torch.eye(n)], 1)
    directions = directions.double().cpu()
    size, turn = torch.linalg.eigh(directions @ directions.mT)  # [example, n], [example, label, n]
    kept = size > FLAT * size[:, -1:]
    # Each basis vector as a sum of the labels' directions, so that a product with it is a sum of logits.
    weights = turn * torch.where(kept, size, torch.inf).rsqrt()[:, None]
    end = batch.positions["end"].reshape(-1)
    found = effects_along(model, batch, [Toward(end, labels, weights[:, :, i].float()) for i in range(n)])
    basis = weights.mT @ directions  # [example, n, d_model]
    right = directions[:, 0] - directions[:, 1:].mean(1)
    return LabelSubspace(
        np.stack([one.values for one in found], -1),
        np.stack([one.total - one.others["read-out bias"] for one in found], -1),
        torch.einsum("end,ed->en", basis, right).numpy(),
    )
