"""Learning numbers by head with the weights of the model left alone: what LoFiT, SEAL and head gates have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from headatlas.edits.affine import Affine
from headatlas.heads import HeadId
from headatlas.model import Model
from headatlas.model.runs.shared_pass import demand_gradients
from headatlas.progress import Progress
from headatlas.task import Batch, Metric

AT_ONCE = 8  # prompts a step


@torch.enable_grad()
def learn(
    model: Model,
    batch: Batch,
    metric: Metric,
    make: Callable[[], tuple[Mapping[HeadId, Tensor], Mapping[HeadId, Tensor]]],
    parameters: Sequence[Tensor],
    *,
    penalty: Callable[[], Tensor] | None = None,
    steps: int,
    rate: float,
    seed: int = 0,
    progress: Progress,
) -> list[float]:
    """Adam on parameters so that the metric gets better on the batch; the metric's mean at each step, before it is taken.

    make(): scale and shift by head (`Affine`) as the parameters have them, in force at every token. penalty(): what is added
    to the loss. Raises UnsupportedModel for weights through which gradients do not flow.
    """
    demand_gradients(model)
    optimizer = torch.optim.Adam(parameters, lr=rate)
    rng = np.random.default_rng(seed)
    order: list[int] = []
    reached = []
    for _ in range(steps):
        if len(order) < AT_ONCE:  # once more through all prompts
            order += rng.permutation(len(batch)).tolist()
        rows, order = order[:AT_ONCE], order[AT_ONCE:]
        part = batch.rows(rows)
        scale, shift = make()
        heads = [*dict.fromkeys((*scale, *shift))]
        edits = [Affine(heads, scale, shift)] if heads else []  # none where weights are learned, by hooks
        logits = model.forward(part, edits=edits, logit_positions=metric.positions(part), grad=True)
        score = metric.score(logits.cpu(), part).mean()
        loss = metric.worse(score)
        if penalty is not None:
            loss = loss + penalty().to(loss.device)
        for one, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters)), strict=True):
            one.grad = gradient
        optimizer.step()
        reached.append(float(score.detach()))
        progress.advance("learn", of=steps)
    return reached
