"""Steering: push heads' outputs along a direction while the model runs, and measure what it does beside a random direction.

Inference-time intervention, Li et al. 2023: z of a head at each generated position + alpha * sigma * direction, where the
direction has length one and sigma is the standard deviation of z along it. The same is done to the residual stream of a
layer where layers are named in place of heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.edits import Add, OnHeads, Project, directions
from headatlas.edits.base import Heads, Layers, Positions
from headatlas.edits.collect import collect
from headatlas.edits.move import Key
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.probing import Labels, probe, tokens_read
from headatlas.model import Model
from headatlas.ops import stats
from headatlas.ops.types import Array
from headatlas.task import Batch, Metric, logit_difference

DIRECTIONS = ("mean", "probe", "pca", "random")


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
    if kind not in DIRECTIONS:
        raise BadInput(f"There is no direction '{kind}'.", f"Choose one of {', '.join(DIRECTIONS)}.")
    if component not in ("z", "residual"):
        raise BadInput(f"Steering does not act on '{component}'.", "Choose z (outputs of heads) or residual (layers).")
    columns = torch.arange(batch.tokens.shape[1])
    places = (
        torch.where(batch.mask, columns, -1).amax(1, keepdim=True)
        if positions is None
        else positions.reshape(len(batch), -1)
    )
    means = directions.difference_of_means(model, where, batch, labels, component=component, positions=places)
    if kind == "probe":
        found = directions.probe(model, where, batch, labels, component=component, positions=places)
    elif kind == "pca":
        first = directions.principal(model, where, batch, component=component, positions=places)
        found = {key: value[0] * (1 if float(value[0] @ means[key]) >= 0 else -1) for key, value in first.items()}
    else:
        found = directions.random(means, seed) if kind == "random" else means
    flat = [str(key) for key, value in found.items() if float(value.norm()) == 0]
    if flat:
        raise BadInput(
            f"The two classes do not differ at {', '.join(flat)}.", "Leave these out, or give other prompts."
        )
    unit = {key: value / value.norm() for key, value in found.items()}
    return Steering(unit, _spread(model, where, batch, unit, component, places), component, kind)


def _spread(
    model: Model, where: Heads | Layers, batch: Batch, unit: Mapping[Key, Tensor], component: str, places: Tensor
) -> dict[Key, float]:
    """Standard deviation over all chosen tokens of all examples of the outputs along each direction."""
    found: dict[Key, float] = {}
    present = places >= 0
    for place, x in collect(model, batch, OnHeads(where, component=component)).items():
        index = places.clamp(min=0)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        chosen = x.float().cpu().gather(1, index)[present]  # [token, head, width]
        for key, direction in unit.items():
            here = (
                key == place if component == "residual" else isinstance(key, HeadId) and (key.stack, key.layer) == place
            )
            if here:
                column = 0 if not isinstance(key, HeadId) else key.head
                found[key] = float((chosen[:, column] @ direction.cpu()).std())
    return found


@dataclass(frozen=True)
class Dose:
    """One alpha (None: the direction taken away): mean metric, its mean change with a 95% interval, what random directions do, and the harm elsewhere.

    random: mean change over random directions; random_reach: the largest change of either sign among them. beyond: whether
    the interval excludes zero and the change is larger than that of every random direction. harm: change of the loss on
    unrelated text, NaN where it was not measured.
    """

    alpha: float | None
    value: float
    change: float
    low: float
    high: float
    random: float
    random_reach: float
    beyond: bool
    harm: float


@dataclass(frozen=True)
class Doses:
    """values [example, alpha], base [example] the metric with and without steering; random [draw, example, alpha].

    harm [example, alpha]: loss on unrelated text with steering minus without, None where it was not measured.
    """

    alphas: tuple[float | None, ...]
    base: Array
    values: Array
    random: Array
    harm: Array | None
    metric: Metric

    def summary(self) -> list[Dose]:
        """One line per alpha."""
        change = self.values - self.base[:, None]
        low, high = stats.bootstrap(change)
        drawn = (self.random - self.base[None, :, None]).mean(1)  # [draw, alpha]
        lines = []
        for i, alpha in enumerate(self.alphas):
            mean, reach = float(change[:, i].mean()), float(np.abs(drawn[:, i]).max())
            apart = low[i] > 0 or high[i] < 0
            harm = math.nan if self.harm is None else float(self.harm[:, i].mean())
            lines.append(
                Dose(alpha, float(self.values[:, i].mean()), mean, float(low[i]), float(high[i]), float(drawn[:, i].mean()), reach,
                     bool(apart and abs(mean) > reach), harm)
            )  # fmt: skip
        return lines


def measure(
    model: Model,
    steering: Steering,
    batch: Batch,
    metric: Metric,
    alphas: Sequence[float | None],
    *,
    draws: int = 5,
    everywhere: bool = False,
    unrelated: tuple[Batch, Metric] | None = None,
    seed: int = 0,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Doses:
    """The metric of a batch under steering by each alpha (None: the direction taken away), and under `draws` random directions of the same size.

    everywhere: push at every token; else at the positions whose logits the metric reads, which is where the text would go
    on. unrelated: a batch and its loss, to see what steering costs elsewhere (pushed at every token). Raises BadInput.
    """
    if not alphas or draws < 1:
        raise BadInput("Steering is measured with one alpha and one random direction at least.", "Give --alpha 5,10.")
    positions = None if everywhere else metric.positions(batch)
    total = len(alphas) * (1 + draws + (unrelated is not None))
    done = 0

    def score(edits: Sequence[OnHeads], on: Batch, by: Metric) -> Array:
        nonlocal done
        tick(done, total)
        done += 1
        return edited_metric(model, on, by, edits)

    base = edited_metric(model, batch, metric, [])
    values = np.stack([score([steering.dose(alpha, positions)], batch, metric) for alpha in alphas], 1)
    controls = [steering.random(seed + 1 + draw) for draw in range(draws)]
    random = np.stack(
        [np.stack([score([one.dose(alpha, positions)], batch, metric) for alpha in alphas], 1) for one in controls]
    )
    harm = None
    if unrelated is not None:
        plain = edited_metric(model, *unrelated, [])
        harm = np.stack([score([steering.dose(alpha)], *unrelated) - plain for alpha in alphas], 1)
    tick(total, total)
    return Doses(tuple(alphas), base, values, random, harm, metric)


def edited_metric(model: Model, batch: Batch, metric: Metric, edits: Sequence[OnHeads]) -> Array:
    """[example] the metric with edits made for this batch in force."""
    asked = metric.positions(batch).shape[
        1
    ]  # logits of the whole vocabulary there, at most a quarter of a gigabyte at once
    size = max(1, min(4096 // batch.tokens.shape[1], (1 << 26) // (asked * max(model.vocabulary_size, 1))))
    scores = []
    for start in range(0, len(batch), size):
        rows = slice(start, start + size)
        part = batch.rows(rows)
        logits = model.forward(part, edits=[edit.rows(rows) for edit in edits], logit_positions=metric.positions(part))
        scores.append(metric.score(logits.cpu(), part).double().numpy())
    return np.concatenate(scores)


def generate(
    model: Model, prompt: str, make: Callable[[Positions], Sequence[OnHeads]] | None = None, n: int = 40
) -> str:
    """The model's greedy continuation of a prompt by up to n tokens, steered at each position that decides a token of it.

    make(positions): the edits, such as `lambda positions: [steering.add(10, positions)]`; None: unsteered. Raises BadInput.
    """
    if not model.has_logits or model.kind != "decoder":
        raise BadInput(f"{model.name} does not generate text.", "Use a decoder.")
    front = [] if model.tokenizer.bos is None else [model.tokenizer.bos]
    ids = [*front, *model.tokenizer.encode(prompt)]
    if not ids or n < 1 or len(ids) + n > model.tokenizer.context:
        raise BadInput(
            f"A prompt of {len(ids)} tokens cannot be continued by {n}.",
            f"Together 1 to {model.tokenizer.context} fit.",
        )
    tokens = torch.tensor([ids], device=model.device)
    edits = [] if make is None else list(make(range(len(ids) - 1, len(ids) - 1 + n)))
    with model.edited(edits) as hf, torch.no_grad():
        plain: Any = hf
        # One prompt needs no padding; naming a token for it keeps transformers from announcing that it chose one.
        text = plain.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n, do_sample=False, pad_token_id=ids[-1]
        )
    return model.tokenizer.decode(text[0, len(ids) :].tolist())


def data_of(found: Doses) -> dict[str, Any]:
    """The numbers as plain values."""
    return {
        "metric": found.metric.name,
        "unit": found.metric.unit,
        "n_examples": len(found.base),
        "base": float(found.base.mean()),
        "n_random": len(found.random),
        "doses": [vars(line) for line in found.summary()],
    }


def best_heads(
    model: Model,
    batch: Batch,
    labels: Labels,
    k: int,
    *,
    position: str = "end",
    seed: int = 0,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[HeadId, ...]:
    """The k heads whose linear probes are the most accurate in cross-validation (ITI's choice). Raises BadInput."""
    if not 1 <= k <= len(model.heads):
        raise BadInput(f"{k} heads cannot be picked.", f"{model.name} has {len(model.heads)}.")
    found = probe(model, batch, labels, position=position, shuffles=1, test=0, seed=seed, tick=tick)
    return tuple(line.head for line in found.scores.top(k))


def one_in_twenty(model: Model) -> int:
    """How many heads to push unless told: ITI pushes 48 of 1024."""
    return max(1, round(len(model.heads) / 20))


def toward(labels: Labels, name: str | None = None) -> Tensor:
    """[example] 1 for the class to steer to (default: the last), 0 for all others. Raises BadInput."""
    if name is not None and name not in labels.classes:
        raise BadInput(f"There is no class '{name}'.", f"The classes are {', '.join(labels.classes)}.")
    number = labels.classes.index(name) if name is not None else len(labels.classes) - 1
    return torch.from_numpy((labels.y == number).astype(np.int64))


def toward_metric(metric: Metric, batch: Batch, label: str | None, target: str) -> Metric:
    """The logit difference counted for the class that is steered to, where the measured prompts carry the same label.

    A task's own metric is for the right answer, so pushing to one class helps its prompts and hurts the others', which
    cancels. Here a prompt of another class counts with the opposite sign: its wrong answer is that of the target class.
    Other metrics, and prompts of two answers without labels, are taken as they are.
    """
    value = batch.labels.get(label) if label is not None else None
    if value is None or metric is not logit_difference or len(value.unique()) != 2 or not target.isdigit():
        return metric

    def score(logits: Tensor, part: Batch) -> Tensor:
        sign = torch.where(part.labels[str(label)] == int(target), 1.0, -1.0)
        return metric.score(logits, part) * sign

    return replace(metric, name=f"{metric.name} towards {label} {target}", score=score)


def places(batch: Batch, position: str) -> Tensor:
    """[example, 1] a named position of each example."""
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


def parse_alphas(text: str) -> list[float]:
    """The numbers of "5,10,-15". Raises BadInput."""
    try:
        found = [float(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise BadInput(f"'{text}' is no list of numbers.", "Write --alpha 5,10,15.") from error
    if not found or not all(math.isfinite(value) for value in found):
        raise BadInput(f"'{text}' is no list of numbers.", "Write --alpha 5,10,15.")
    return found
