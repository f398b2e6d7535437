"""Task subspace logit attribution: what each head writes within the subspace that the labels of a task span. Yang et al. 2025.

The subspace is spanned by the directions that the labels' logits are read from, through the final norm's gain, less the mean of
all tokens': what raises all logits alike changes no probability, and with it in, the span would depend on how a model happens to be written down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.edits.collect import pieces
from headatlas.model import Model
from headatlas.model.runs.residual_stream import Writes, decompose, logit_direction
from headatlas.model.structure.blocks import blocks_of
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
    each = torch.eye(labels.shape[1])
    directions = torch.stack([logit_direction(model, labels, one.expand(len(labels), -1)) for one in each], 1)
    directions = (directions - _mean_direction(model)).double().cpu()
    size, turn = torch.linalg.eigh(directions @ directions.mT)  # [example, n], [example, label, n]
    kept = size > FLAT * size[:, -1:]
    basis = (turn * torch.where(kept, size, torch.inf).rsqrt()[:, None]).mT @ directions  # [example, n, d_model]

    heads, stream, start = [], [], 0
    for part in pieces(batch):
        along, found = basis[start : start + len(part)].float(), list[Tensor]()

        def wrote(writes: Writes, along: Tensor = along, found: list[Tensor] = found) -> None:
            if writes.z is not None:
                written = writes.heads()[:, 0]
                found.append(torch.einsum("ehd,end->ehn", written, along.to(written.device)))

        end = decompose(model, blocks_of(model), part, part.positions["end"].reshape(-1, 1), wrote)
        scale = end.scale[:, 0] * end.factor
        heads.append((torch.cat(found, 1) * scale[:, None]).cpu())
        last = end.residual[:, 0].float()
        stream.append((torch.einsum("ed,end->en", last, along.to(last.device)) * scale).cpu())
        start += len(part)
    right = directions[:, 0] - directions[:, 1:].mean(1)
    return LabelSubspace(
        torch.cat(heads).double().numpy(),
        torch.cat(stream).double().numpy(),
        torch.einsum("end,ed->en", basis, right).numpy(),
    )


def _mean_direction(model: Model) -> Tensor:
    """[d_model] the direction that the mean of all logits is read from."""
    found = model.unembedding
    assert found is not None  # `logit_direction` has refused such models
    direction = found.weight.float().mean(1) * found.gain
    return direction - direction.mean() if found.centers else direction
