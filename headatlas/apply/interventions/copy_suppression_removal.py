"""Heads that lower words of the text which are about to be said, weakened or removed. McDougall et al. 2023."""

from __future__ import annotations

import numpy as np

from headatlas.apply.recipe.choosing import best_of
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.recipe import ALWAYS, Recipe, names, scaled
from headatlas.detectors.copy_suppression import copy_suppression
from headatlas.errors import BadInput
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch, find_task
from headatlas.task.answers import find_metric

PICK = 2
FACTORS = (0.0, 0.5)
TEXTS = 16


@intervention(
    tasks=("ioi", "ioi-held-out"),
    metrics=("logit-difference",),
    takes=("heads", "pick", "alpha"),
    control="heads",
    papers=("mcdougall-2023-copy-suppression",),
)
def copy_suppression_removal(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Scale down the heads that find a word of the text which is about to be said and argue against it.

    Heads: those with the highest score of the detector copy-suppression, on prose (`pick`; 2). alpha: factors of their output to try on the prompts, at every
    token (0 removes them). Rivals: the same factor for as many random heads of the same layers.
    """
    heads, score = options.heads_of(model), None
    if heads is None:
        texts = find_task("prose")(model.tokenizer, TEXTS, options.seed)
        found = copy_suppression.measure(model, texts)
        beyond = np.nanmean(found.values.numpy(), axis=0) - np.nanmean(found.control.numpy(), axis=0)
        order = np.argsort(-beyond, kind="stable")[: options.pick or PICK]
        if not float(beyond[order[0]]) > 0:
            raise BadInput(f"No head of {model.name} suppresses copies beyond chance.", "Name some with --heads.")
        heads = tuple(model.heads[int(i)] for i in order)
        score = [round(float(beyond[i]), 4) for i in order]
    factors = options.alphas or list(FACTORS)
    tried = [
        Recipe("copy-suppression-removal", scaled(model, dict.fromkeys(heads, one)), when=ALWAYS) for one in factors
    ]
    metric = find_metric("logit-difference")
    number, reached = best_of(model, tried, batch, metric, progress)
    facts = {
        "heads": names(heads), "score": score, "alpha": factors[number], "chosen_by": metric.name,
        "tried": [[size, round(value, 4)] for size, value in zip(factors, reached, strict=True)],
    }  # fmt: skip
    return Recipe("copy-suppression-removal", tried[number].scale, when=ALWAYS, facts=facts)
