"""Steering directions: along what heads' outputs, or the residual stream, are pushed while the model runs.

Inference-time intervention, Li et al. 2023: z of a head at each generated position + alpha * sigma * direction, where the
direction has length one and sigma is the standard deviation of z along it. The same is done to the residual stream of a
layer where layers are named in place of heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headatlas.choices import STEERING
from headatlas.edits import Add, OnHeads, Project, directions
from headatlas.edits.base import Heads, Layers, Positions
from headatlas.edits.collect import collect
from headatlas.edits.move import Key
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.labels import Labels
from headatlas.methods.probing import CrossValidation, probe, tokens_read
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch

DIRECTIONS = STEERING.values


@dataclass(frozen=True, eq=False)
class Steering:
    """Where to push and along what: directions of length one by head (by (stack, layer) for the residual stream).

    spread: key -> standard deviation of the examples' outputs along the direction, the unit that alpha counts in. kind: how
    the directions were found.
    """

    directions: Mapping[Key, Tensor]
    spread: Mapping[Key, float]
    component: str
    kind: str

    @property
    def _where(self) -> Heads | Layers:
        if self.component == "residual":
            return [(str(stack), int(layer)) for stack, layer in self.directions]  # type: ignore[misc]
        return [key for key in self.directions if isinstance(key, HeadId)]

    def add(self, alpha: float, positions: Positions = None) -> Add:
        """The edit that moves outputs by alpha standard deviations along the direction; negative: against it."""
        moved = {key: self.spread[key] * value for key, value in self.directions.items()}
        return Add(self._where, moved, scale=alpha, component=self.component, positions=positions)

    def remove(self, positions: Positions = None) -> Project:
        """The edit that takes away what outputs have along the direction."""
        return Project(self._where, self.directions, component=self.component, positions=positions)

    def dose(self, alpha: float | None, positions: Positions = None) -> OnHeads:
        """`add(alpha)`, or `remove()` where alpha is None."""
        return self.remove(positions) if alpha is None else self.add(alpha, positions)

    def random(self, seed: int) -> Steering:
        """The control: random directions, moved by the same distances."""
        return Steering(directions.random(self.directions, seed), self.spread, self.component, "random")


def find(
    model: Model,
    where: Heads | Layers,
    batch: Batch,
    labels: Tensor,
    kind: str = "mean",
    *,
    component: str = "z",
    positions: Tensor | None = None,
    seed: int = 0,
) -> Steering:
    """Directions from prompts labelled 0 to prompts labelled 1, of length one.

    where: heads, or layers where component is "residual". kind: mean (difference of class means), probe (logistic regression),
    pca (first principal direction, pointing to class 1) or random. positions [example, n]: the tokens that are averaged within an
    example; default the last. Raises BadInput.
    """
    STEERING.demand(kind)
    if component not in ("z", "residual"):
        raise BadInput(f"Steering does not act on '{component}'.", "Choose z (outputs of heads) or residual (layers).")
    columns = torch.arange(batch.tokens.shape[1])
    at = (
        torch.where(batch.mask, columns, -1).amax(1, keepdim=True)
        if positions is None
        else positions.reshape(len(batch), -1)
    )
    found = directions.difference_of_means(model, where, batch, labels, component=component, positions=at)
    means = dict(sorted(found.items()))  # random directions are drawn one after the other: the same order in every run
    if kind == "probe":
        found = directions.probe(model, where, batch, labels, component=component, positions=at)
    elif kind == "pca":
        first = directions.principal(model, where, batch, component=component, positions=at)
        found = {key: value[0] * (1 if float(value[0] @ means[key]) >= 0 else -1) for key, value in first.items()}
    else:
        found = directions.random(means, seed) if kind == "random" else means
    found = {key: found[key] for key in means}
    flat = [str(key) for key, value in found.items() if float(value.norm()) == 0]
    if flat:
        raise BadInput(
            f"The two classes do not differ at {', '.join(flat)}.", "Leave these out, or give other prompts."
        )
    unit = {key: value / value.norm() for key, value in found.items()}
    return Steering(unit, spread_along(model, where, batch, unit, component, at), component, kind)


def spread_along(
    model: Model, where: Heads | Layers, batch: Batch, unit: Mapping[Key, Tensor], component: str, positions: Tensor
) -> dict[Key, float]:
    """Standard deviation over all chosen tokens of all examples of the outputs along each direction."""
    found: dict[Key, float] = {}
    present = positions >= 0
    for layer, x in collect(model, batch, OnHeads(where, component=component)).items():
        index = positions.clamp(min=0)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        chosen = x.float().cpu().gather(1, index)[present]  # [token, head, width]
        for key, direction in unit.items():
            here = (
                key == layer if component == "residual" else isinstance(key, HeadId) and (key.stack, key.layer) == layer
            )
            if here:
                column = 0 if not isinstance(key, HeadId) else key.head
                found[key] = float((chosen[:, column] @ direction.cpu()).std())
    return found


def best_heads(
    model: Model,
    batch: Batch,
    labels: Labels,
    k: int,
    *,
    position: str = "end",
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[HeadId, ...]:
    """The k heads whose linear probes are the most accurate in cross-validation (ITI's choice). Raises BadInput."""
    if not 1 <= k <= len(model.heads):
        raise BadInput(f"{k} heads cannot be picked.", f"{model.name} has {len(model.heads)}.")
    found = probe(
        model,
        batch,
        labels,
        position=position,
        validation=CrossValidation(shuffles=1, test=0, seed=seed),
        progress=progress,
    )
    return tuple(line.head for line in found.scores.top(k))


def one_in_twenty(model: Model) -> int:
    """How many heads to push unless told: ITI pushes 48 of 1024."""
    return max(1, round(len(model.heads) / 20))


def toward(labels: Labels, name: str | None = None) -> Tensor:
    """[example] 1 for the class to steer to (default: the last), 0 for all others. Raises BadInput."""
    if name is not None and name not in labels.classes:
        raise BadInput(f"Unknown class '{name}'.", f"The classes are {', '.join(labels.classes)}.")
    number = labels.classes.index(name) if name is not None else len(labels.classes) - 1
    return torch.from_numpy((labels.y == number).astype(np.int64))


def position_of(batch: Batch, position: str) -> Tensor:
    """[example, 1] a named position of each example. Raises BadInput."""
    return tokens_read(batch, position).argmax(1, keepdim=True)


def name_of(key: Key) -> str:
    """A head or layer as text."""
    return (
        str(key)
        if isinstance(key, HeadId)
        else f"layer {key[1]}"
        if key[0] == "decoder"
        else f"{key[0]} layer {key[1]}"
    )
