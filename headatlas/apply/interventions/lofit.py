"""Localized fine-tuning: a few heads are chosen by learning, and a bias is learned for each. Yin et al. 2024 (LoFiT)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.learning import learn
from headatlas.apply.recipe.recipe import ALWAYS, Recipe, names
from headatlas.heads import HeadId
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch
from headatlas.task.answers import log_probability

SHARE = 0.03  # of the heads, as the paper stores
SPARSITY = 5e-4
STEPS = 30
RATES = (5e-3, 2e-2)  # of choosing heads, and of learning their biases


@intervention(
    tasks=("icl-country-capital-zero-shot", "icl-country-capital-zero-shot-held-out"),
    metrics=("accuracy", "log-probability"),
    takes=("heads", "pick", "steps", "rate"),
    control="fitted",
    papers=("yin-2024-lofit",),
)
def lofit(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Learn which heads to change, then a bias for each of them, with all weights left alone.

    First a factor of every head's output is learned with an L1 penalty (z becomes (1 + A) z), and the heads with the largest A
    are kept (`pick`; 3%). Then, from the start again, a bias is learned on those alone (z + v, at every token), by the
    log-probability of the answers. Rivals: biases learned in the same way on as many random heads of the same layers.
    """
    generator = torch.Generator().manual_seed(options.seed)
    steps, heads, chosen_by = options.steps or STEPS, options.heads_of(model), None
    if heads is None:
        heads, chosen_by = _chosen(model, batch, options, steps, generator, progress), "size of the learned factor"
    rate = options.rate or RATES[1]

    def biases(where: Sequence[HeadId]) -> tuple[dict[HeadId, Tensor], list[float]]:
        values = {head: _small(model, head, generator).requires_grad_(True) for head in where}
        reached = learn(
            model, batch, log_probability, lambda: ({}, values), list(values.values()), steps=steps, rate=rate,
            seed=options.seed, progress=progress,
        )  # fmt: skip
        return {head: value.detach().cpu() for head, value in values.items()}, reached

    shift, reached = biases(heads)
    rng = np.random.default_rng(options.seed)
    free = sorted(set(model.heads) - set(heads))
    rivals = [biases(sorted(matched(heads, free, rng)))[0] for _ in range(options.draws)]
    facts = {"heads": names(heads), "chosen_by": chosen_by, "steps": steps, "rate": rate,
             "log_probability": [round(reached[0], 4), round(reached[-1], 4)]}  # fmt: skip
    return Recipe(
        "lofit", shift=shift, when=ALWAYS, facts=facts,
        rivals=tuple(Recipe("lofit", shift=one, when=ALWAYS) for one in rivals),
    )  # fmt: skip


def _small(model: Model, head: HeadId, generator: torch.Generator) -> Tensor:
    """[d_value] N(0, 0.001), from which the paper starts."""
    width = model.layer(head.layer, head.stack).d_value
    return (1e-3 * torch.randn(width, generator=generator, dtype=torch.float32)).to(model.device)


def _chosen(
    model: Model, batch: Batch, options: RecipeOptions, steps: int, generator: torch.Generator, progress: Progress
) -> tuple[HeadId, ...]:
    """The heads whose factors move most when those of all heads are learned under an L1 penalty."""
    moved = {head: _small(model, head, generator).requires_grad_(True) for head in model.heads}
    learn(
        model, batch, log_probability, lambda: ({head: 1 + value for head, value in moved.items()}, {}),
        list(moved.values()), penalty=lambda: SPARSITY * torch.stack([one.abs().sum() for one in moved.values()]).sum(),
        steps=steps, rate=RATES[0], seed=options.seed, progress=progress,
    )  # fmt: skip
    size = {head: float(value.detach().norm()) for head, value in moved.items()}
    k = options.pick or max(1, round(SHARE * len(model.heads)))
    return tuple(sorted(size, key=lambda head: (-size[head], head))[:k])
