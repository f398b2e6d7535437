"""What a model gives without changes, kept as labels for metrics that compare with it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from headatlas.edits.collect import pieces
from headatlas.errors import BadInput
from headatlas.model import Model
from headatlas.task import Batch
from headatlas.task.encoders import pooled


def end_logits(model: Model, batch: Batch) -> Tensor:
    """[example, vocab] logits at the end of each prompt, in float32. Raises BadInput for a model without any."""
    if not model.has_logits:
        raise BadInput(f"{model.name} gives no token logits.", "Load it with its language-model head.")
    found = [
        model.forward(part, logit_positions=part.positions["end"].reshape(-1, 1))[:, 0].float().cpu()
        for part in pieces(batch)
    ]
    return torch.cat(found)


def with_clean_run(model: Model, batch: Batch) -> Batch:
    """The batch with labels["clean"]: the log-probabilities of its run without changes, for `kl`."""
    if "clean" in batch.labels:
        return batch
    return replace(batch, labels={**batch.labels, "clean": end_logits(model, batch).double().log_softmax(-1)})


def with_clean_vector(model: Model, batch: Batch) -> Batch:
    """The batch with labels["vector"]: the pooled vector of its run without changes, for `pooled_change`."""
    if "vector" in batch.labels:
        return batch
    found = [pooled(model.forward(part), part).cpu() for part in pieces(batch)]
    return replace(batch, labels={**batch.labels, "vector": torch.cat(found)})
