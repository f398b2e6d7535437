"""Where heads attend from the last token of a prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.model import LayerView, Model
from headatlas.ops.memo import once
from headatlas.task import Batch


def from_end(model: Model, batch: Batch) -> Tensor:
    """[example, head, key] attention from the end, 0 where a window does not reach; computed once for a batch."""

    def make() -> Tensor:
        found: list[Tensor] = []
        each = torch.arange(len(batch))

        def watch(layer: LayerView) -> None:
            wanted, which = batch.positions["end"].to(layer.q.device).unique(return_inverse=True)
            found.append(layer.rows(wanted)[each, :, which].float().nan_to_num(0.0).cpu())

        model.forward(batch, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
        return torch.cat(found, 1)

    return once(model, batch, "attention from the end", make)


def share_of(model: Model, batch: Batch, places: Tensor) -> Tensor:
    """[example, head] share of the attention from the end, beyond the first token, that goes to places [example, n], -1 for none."""
    seen = from_end(model, batch)
    wanted = (places[..., None] == torch.arange(batch.tokens.shape[1])).any(1)
    first = batch.mask.float().argmax(1)
    free = 1 - seen.gather(-1, first[:, None, None].expand(-1, seen.shape[1], -1))[..., 0]
    return torch.einsum("ehk,ek->eh", seen, wanted.float()) / free.clamp(min=1e-6)
