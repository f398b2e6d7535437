"""What heads attend to from several tokens of a text, taken together, such as those of a question."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.model.core.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.model.core.view import LayerView


def mean_rows(layer: LayerView, queries: Tensor) -> Tensor:
    """[example, head, key] attention of a layer on each token, averaged over an example's queries [example, n] (positions; -1: none).

    Rows from the first to the last of them are computed, and no others. float32, on the layer's device.
    """
    rows = torch.arange(int(queries[queries >= 0].min()), int(queries.max()) + 1, device=queries.device)
    weight = (queries[..., None] == rows).any(1).float()  # [example, row]
    weight = weight / weight.sum(1, keepdim=True)
    attention = layer.rows(rows.to(layer.q.device)).float()
    return torch.einsum("ehqk,eq->ehk", attention, weight.to(attention.device))


def mean_attention(model: Model, batch: Inputs, queries: Tensor) -> Tensor:
    """[example, head, key] the same of all heads of a model in one pass, on the CPU. queries: positions [example, n] (-1: none)."""
    found: list[Tensor] = []
    with torch.no_grad():
        model.forward(
            batch,
            watch=lambda layer: found.append(mean_rows(layer, queries).cpu()),
            logit_positions=torch.zeros(1, dtype=torch.long),
        )
    return torch.cat(found, 1)
