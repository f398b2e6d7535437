"""Inference-time intervention: heads in which truth can be read are pushed to its side. Li et al. 2023."""

from __future__ import annotations

from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.pushing import Pushing, push
from headatlas.apply.recipe.recipe import Recipe
from headatlas.apply.recipe.true_answers import prompts as prompts
from headatlas.apply.recipe.true_answers import sized_by_next
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch
from headatlas.task.answers import demand_measurable, mc2


@intervention(
    metrics=("mc1", "mc2", "truth-margin"),
    takes=("heads", "pick", "alpha", "direction"),
    control="directions",
    papers=("li-2023-iti",),
)
def iti(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Push the heads whose outputs tell true answers from false ones along the direction of truth.

    z + alpha * sigma * direction at the last token of the prompt and at each generated one. Heads: those with the most
    accurate linear probes at the last token of question and answer, in cross-validation that parts no question (`pick`;
    1 in 20). direction: mean (difference of class means), probe, or both tried. sigma: standard deviation along the direction in a set of its own,
    question, answer and another question. alpha: each of the grid is tried on questions held back, by MC2. Differs: the
    paper ranks heads on one split of the questions, and chooses alpha by a judge model.
    """
    demand_measurable(mc2, batch)
    how = Pushing("right", mc2, kinds=("mean", "probe"), sized=sized_by_next)
    return push("iti", model, batch, options, progress, how)
