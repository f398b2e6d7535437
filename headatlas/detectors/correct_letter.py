"""Heads that attend to the label of the right option of a multiple-choice question and write it as the answer."""

from __future__ import annotations

import torch
from torch import Tensor

from headatlas.detector import Measured, model_detector
from headatlas.methods.direct_logit_attribution import Toward, direct_effects
from headatlas.model import LayerView, Model
from headatlas.task import HELD_OUT, Batch, find_task
from headatlas.tasks import mcqa


@model_detector(
    head_type="correct-letter-head",
    task=find_task("mcqa-4"),
    also=tuple(task for task in mcqa.TASKS if task.name != "mcqa-4" and not task.name.endswith(HELD_OUT)),
    version=1,
    minimum_effect=0.1,
    needs=("unembedding",),
    verdict_positions="end",
)
def correct_letter(model: Model, batch: Batch) -> Measured:
    """Attention from the end to the right option's label, over the other labels: 0 no preference, 1 all on the right one.

    Formula: A[end, label y] - mean over x != y of A[end, label x], y the right option; 0 for heads whose direct effect by
    way of the labels does not, on average, raise the right label's logit over the others' (Lieberum et al. 2023: attention
    of correct letter heads, among nodes of high direct effect). The right option stands in each place equally often, so a
    preference for one place or one letter cancels. Chance: the same for a question that none of the options answers. A
    tenth of the attention is the least that counts.
    """
    assert batch.control is not None
    effect = _written(model, batch).mean(0)
    return Measured(*(_preference(model, part) * (effect > 0) for part in (batch, batch.control)))


def _labels(batch: Batch) -> tuple[Tensor, Tensor]:
    """Positions [example, option] of the labels, and whether each is the right one's."""
    names = sorted(name for name in batch.positions if name.startswith("label"))
    # A label of several tokens is read where it is complete.
    places = torch.stack([batch.positions[name].amax(1) for name in names], 1)
    return places, torch.arange(len(names)) == batch.labels["right"][:, None]


def _preference(model: Model, batch: Batch) -> Tensor:
    """[example, head] attention from the end to the right label minus the mean over the others."""
    places, right = _labels(batch)
    options = places.shape[1]
    weight = torch.where(right, 1.0, -1.0 / (options - 1))
    found: list[Tensor] = []

    def watch(layer: LayerView) -> None:
        queries = batch.positions["end"][:, None].expand(-1, options).to(layer.q.device)
        attention = layer.entries(queries, places.to(layer.q.device)).float().cpu()
        # A window that does not reach a label leaves it unseen: no attention.
        found.append((attention.nan_to_num(0.0) * weight[:, None]).sum(-1))

    model.forward(batch, watch=watch, logit_positions=torch.zeros(1, dtype=torch.long))
    return torch.cat(found, 1)


def _written(model: Model, batch: Batch) -> Tensor:
    """[example, head] direct effect, by way of all labels, on the right label's logit minus the mean of the others'."""
    found = direct_effects(model, batch, toward=Toward.answer(batch), by_source=True).by_source
    assert found is not None
    keys = _labels(batch)[0][:, None].expand(-1, found.shape[1], -1)
    return torch.from_numpy(found).gather(-1, keys).sum(-1)
