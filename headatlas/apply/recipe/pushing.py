"""Pushing heads along what their outputs tell apart: what inference-time intervention (Li et al. 2023) and its relatives share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from headatlas.apply.recipe.choosing import best_of, held_back, last_told, two_classes
from headatlas.apply.recipe.intervention import RecipeOptions
from headatlas.apply.recipe.recipe import ANSWERING, Recipe, names
from headatlas.apply.steering.direction import Steering, find, one_in_twenty
from headatlas.choices import STEERING
from headatlas.errors import UnfitTask
from headatlas.heads import HeadId
from headatlas.methods.labels import labels_of
from headatlas.methods.probing import CrossValidation, probe
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch, Metric, find_task, next_token_loss

BEARABLE = 0.5  # nats that a push may add to the loss on prose where a gentler one can be had
PASSAGES = 4  # of prose, 128 tokens each, on which strengths are tried


def _same(batch: Batch) -> Batch:
    return batch


@dataclass(frozen=True)
class Pushing:
    """How heads are chosen and pushed.

    label: of two classes; heads are pushed to class 1. metric: by which a strength is chosen on prompts held back. read(batch) ->
    [example, 1]: the token at which heads are probed. probe: linear or mlp, on the mean of the `last` tokens up to there. averaged:
    over how many tokens up to there directions are taken. kinds: of directions, all of them tried. alphas: strengths to try. sized(model,
    steering, batch, seed): directions and sigmas, where these are not those of the examples. learned: the prompts of a batch that are learned from.
    """

    label: str
    metric: Metric
    read: Callable[[Batch], Tensor] = last_told
    probe: str = "linear"
    last: int = 1
    averaged: int = 1
    kinds: Sequence[str] = ("mean",)
    alphas: Sequence[float] = (2.0, 5.0, 10.0, 15.0)
    sized: Callable[[Model, Steering, Batch, int], Steering] | None = None
    when: str = ANSWERING
    learned: Callable[[Batch], Batch] = _same


def push(name: str, model: Model, batch: Batch, options: RecipeOptions, progress: Progress, how: Pushing) -> Recipe:
    """z + alpha * sigma * direction in the heads from which a label is read best; alpha is tried on prompts held back.

    Of several strengths those that add more than 0.5 nats to the loss on prose are not taken (nor any but the gentlest, where all do): a
    model that is broken answers by chance, which can be more often right than it was. Raises BadInput.
    """
    two_classes(how.learned(batch), how.label)
    part, choose = held_back(batch, options.seed)
    learn = how.learned(part)
    heads, accuracy = options.heads_of(model), None
    if heads is None:
        k = options.pick or one_in_twenty(model)
        heads, accuracy = best_probed(
            model, learn, how.label, how.read(learn), k, kind=how.probe, last=how.last, seed=options.seed, progress=progress
        )  # fmt: skip
    y, at = two_classes(learn, how.label), up_to(how.read(learn), how.averaged)
    tried = []
    for kind in [options.direction] if options.direction else how.kinds:
        STEERING.demand(kind)
        steering = find(model, heads, learn, y, kind, positions=at, seed=options.seed)
        if how.sized is not None:
            steering = how.sized(model, steering, learn, options.seed)
        tried += [(kind, alpha, pushed(name, steering, alpha, how.when)) for alpha in options.alphas or how.alphas]
    number, reached, rise = best_bearable(
        model, [one for *_, one in tried], choose, how.metric, seed=options.seed, progress=progress
    )
    kind, alpha, recipe = tried[number]
    facts = {
        "heads": names(heads), "accuracy": accuracy, "direction": kind, "alpha": alpha, "chosen_by": how.metric.name,
        "classes": [int((y == one).sum()) for one in (0, 1)],
        "tried": [[one, size, round(value, 4)] for (one, size, _), value in zip(tried, reached, strict=True)],
        "loss_on_prose": [round(one, 4) for one in rise],
    }  # fmt: skip
    return replace(recipe, facts=facts)


def best_bearable(
    model: Model, recipes: Sequence[Recipe], batch: Batch, metric: Metric, *, seed: int, progress: Progress
) -> tuple[int, list[float], list[float]]:
    """Which of several recipes does best by a metric on held-back prompts among those that `bearable` leaves, what each reaches, and its rise on prose."""
    _, reached = best_of(model, recipes, batch, metric, progress)
    rise = prose_rise(model, recipes, seed) if len(recipes) > 1 else []
    return bearable(reached, rise), reached, rise


def prose_rise(model: Model, recipes: Sequence[Recipe], seed: int) -> list[float]:
    """By how much each recipe, acting at every token, raises the next-token loss on prose; [] for a tokenizer that reads none."""
    try:
        # Other passages than those on which damage is told.
        batch = find_task("prose")(model.tokenizer, PASSAGES, seed + 1)
    except UnfitTask:
        return []
    plain = metric_of(model, batch, next_token_loss).mean()
    return [float(metric_of(model, batch, next_token_loss, edits=one.edits()).mean() - plain) for one in recipes]


def bearable(reached: Sequence[float], rise: Sequence[float]) -> int:
    """Which recipe reaches most (the first of equals) of those that raise the loss on prose by 0.5 nats at most; else which raises it least."""
    if rise and min(rise) > BEARABLE:
        return int(np.argmin(rise))
    spared = [not rise or rise[i] <= BEARABLE for i in range(len(reached))]
    return int(np.argmax(np.where(spared, reached, -np.inf)))


def best_probed(
    model: Model,
    batch: Batch,
    label: str,
    at: Tensor,
    k: int,
    *,
    kind: str = "linear",
    last: int = 1,
    seed: int = 0,
    progress: Progress,
) -> tuple[tuple[HeadId, ...], list[float]]:
    """The k heads whose probes for a label are the most accurate at `at` [example, 1], with their accuracies.

    In cross-validation that parts no group. Of equally accurate heads those of later layers: what stands in the text can be read in
    every head of the first layers. Raises BadInput.
    """
    every = CrossValidation(shuffles=1, test=0, seed=seed)
    told = replace(batch, positions={**batch.positions, "told": at[:, 0]})
    labels = labels_of(batch, label)
    found = probe(model, told, labels, kind=kind, position="told", last=last, validation=every, progress=progress)
    every_head = found.scores.top(len(model.heads))
    best = sorted(every_head, key=lambda line: (-round(line.score, 6), -line.head.layer))[:k]
    return tuple(line.head for line in best), [round(line.score, 4) for line in best]


def pushed(name: str, steering: Steering, alpha: float, when: str = ANSWERING) -> Recipe:
    """The recipe that moves heads by alpha standard deviations along their directions."""
    moved = {head: alpha * steering.spread[head] * value.cpu() for head, value in steering.directions.items()}
    return Recipe(name, shift=moved, when=when)  # type: ignore[arg-type]


def up_to(at: Tensor, n: int) -> Tensor:
    """[example, n] the tokens up to `at` [example, 1], -1 where a text begins later."""
    columns = at - (n - 1) + at.new_tensor(range(n))
    return columns.clamp(min=-1)


def end_of(batch: Batch) -> Tensor:
    """[example, 1] the end of each prompt."""
    return batch.positions["end"].reshape(-1, 1)
