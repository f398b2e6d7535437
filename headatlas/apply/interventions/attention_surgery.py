"""Attention surgery: a few heads are made to look at the wrong answers, which they argue against. Merullo et al. 2024."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headatlas.apply.recipe.choosing import demand_own, strongest
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.outcome import Gain, gains_of
from headatlas.apply.recipe.recipe import Recipe, names
from headatlas.edits import Attend
from headatlas.heads import HeadId
from headatlas.methods.sweeps.cached_runs import CachedRuns
from headatlas.methods.sweeps.plan import metrics_of
from headatlas.model import Model
from headatlas.ops.types import Array
from headatlas.progress import Progress
from headatlas.task import Batch, Metric
from headatlas.task.answers import find_metric

PICK = 4  # three inhibition heads and a negative mover, in the paper
COLORS = ("color1", "color2", "color3")


@intervention(
    tasks=("colored-objects", "colored-objects-held-out"),
    metrics=("chooses right", "logit-margin"),
    takes=("heads", "pick"),
    control="heads",
    papers=("merullo-2024-circuit-reuse",),
)
def attention_surgery(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Set the attention of a few heads at the prompt's end to a half on each wrong color, so that they argue against both.

    It needs to know which answers are wrong: it shows that heads which are there could solve the task, and is no way to solve it, so that nothing is put in force.
    Heads: those that raise the logit margin most by that, each alone (`pick`; 4), or those named, such as the negative name movers of
    `headatlas score`. Chooses right: share of prompts whose color has a higher logit than both others (a third by chance). Rivals: as many random heads of
    the same layers, looking there. Differs: the paper takes the inhibition heads and the negative mover that it knows from names (IOI).
    """
    heads, effect = options.heads_of(model), None
    if heads is None:
        bench = CachedRuns(model, batch, find_metric("logit-margin"))
        runs = [[_looking([head], batch)] for head in model.heads]
        found = (bench.measure(runs) - bench.clean).mean(1)
        heads, effect = strongest(model, found, options.pick or PICK)
    facts = {"heads": names(heads), "effect": effect}
    return Recipe("attention-surgery", reads=heads, facts=facts)


def gains(model: Model, recipe: Recipe, batch: Batch, rivals: Sequence[Recipe]) -> list[Gain]:
    """How often the right color is preferred to both others, and by how much, without and with the heads looking at these."""
    margin = find_metric("logit-margin")
    right = Metric("chooses right", margin.positions, lambda logits, part: (margin.score(logits, part) > 0).double(), True, "share")  # fmt: skip

    def measured(heads: Sequence[HeadId]) -> list[Array]:
        return metrics_of(model, batch, [right, margin], edits=[_looking(heads, batch)] if heads else [])

    random = [measured(one.reads) for one in rivals]
    return gains_of((right, margin), measured(()), measured(recipe.reads), random)


def _looking(heads: Sequence[HeadId], batch: Batch) -> Attend:
    """Heads that look at the two wrong colors from the end. Raises BadInput for prompts without them."""
    demand_own(batch, ("asked", "answer", "wrong"), COLORS, hint="Take the task colored-objects.")
    places = torch.stack([batch.positions[name] for name in COLORS], 1)
    wrong: Tensor = torch.arange(len(COLORS)) != batch.labels["asked"][:, None]
    return Attend(heads, keys=places[wrong].reshape(-1, 2), queries=batch.positions["end"].reshape(-1, 1))
