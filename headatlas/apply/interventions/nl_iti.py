"""Non-linear inference-time intervention: heads by small networks on the last tokens of an answer. Hoscilowicz et al. 2024 (NL-ITI)."""

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

PROBED, AVERAGED = 4, 6  # last tokens for probes, and for directions: the paper's best on TruthfulQA
ALPHAS = (5.0, 10.0, 15.0, 20.0)


@intervention(
    metrics=("mc1", "mc2", "truth-margin"),
    takes=("heads", "pick", "alpha"),
    control="directions",
    papers=("hoscilowicz-2024-nl-iti",),
)
def nl_iti(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Push the heads in which a small network, rather than a line, tells true answers from false ones.

    As `iti`, but for two things. Heads: those with the most accurate networks of 16 hidden units, on the mean of the last 4
    tokens (`pick`; 1 in 20). Direction: always the difference of class means, of the mean of the last 6 tokens. alpha: each of the grid is tried on questions
    held back, by MC2. Differs: shorter answers are averaged with what stands before them, where the paper fills up with zeros, which tells
    a probe how long an answer is; the network has no batch normalisation and is scikit-learn's.
    """
    demand_measurable(mc2, batch)
    how = Pushing("right", mc2, probe="mlp", last=PROBED, averaged=AVERAGED, alphas=ALPHAS, sized=sized_by_next)
    return push("nl-iti", model, batch, options, progress, how)
