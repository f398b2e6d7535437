"""A concept made stronger or weaker by one number: the heads that write it are scaled. Su et al. 2025 (SAMD, SAMI)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.recipe.choosing import best_of, held_back, two_classes
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.recipe import ALWAYS, Recipe, names, scaled
from headatlas.edits import directions
from headatlas.edits.collect import pieces
from headatlas.model import Model
from headatlas.model.runs.residual_stream import Writes, visit_blocks
from headatlas.model.structure.blocks import blocks_of
from headatlas.ops.types import Array, LayerKey
from headatlas.progress import Progress
from headatlas.task import Batch
from headatlas.task.answers import find_metric

PICK = 10
FACTORS = (0.0, 0.5, 1.5, 2.0, 3.0)


@intervention(
    tasks=("movie-review", "movie-review-held-out"),
    metrics=("logit-difference",),
    takes=("heads", "pick", "alpha", "label"),
    control="heads",
    papers=("su-2025-concepts-to-components",),
)
def concept_scaling(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Scale the heads that write a concept by one number.

    The concept is a vector: mean residual stream at the entry of the last block, at the end of prompts labelled 1, minus that of those labelled 0
    (`label`; positive). A head's score: cosine of what it writes there with that vector, mean over prompts labelled 1
    minus mean over those labelled 0, by two. The highest (`pick`; 10) are its module; alpha: factors of their output z to try on prompts held back, at every token. Rivals: the same factor for as many random heads of the same
    layers. Differs: the paper's abstract was read, not the paper; concepts with an opposite are scored from both sides.
    """
    label = options.label or "positive"
    learn, choose = held_back(batch, options.seed)
    heads, score = options.heads_of(model), None
    if heads is None:
        found = _concept_scores(model, learn, two_classes(learn, label))
        order = np.argsort(-found, kind="stable")[: options.pick or PICK]
        heads = tuple(model.heads[int(i)] for i in order)
        score = [round(float(found[i]), 4) for i in order]
    factors = options.alphas or list(FACTORS)
    tried = [Recipe("concept-scaling", scaled(model, dict.fromkeys(heads, one)), when=ALWAYS) for one in factors]
    metric = find_metric("logit-difference")
    number, reached = best_of(model, tried, choose, metric, progress)
    facts = {
        "heads": names(heads), "score": score, "label": label, "alpha": factors[number], "chosen_by": metric.name,
        "tried": [[size, round(value, 4)] for size, value in zip(factors, reached, strict=True)],
    }  # fmt: skip
    return Recipe("concept-scaling", tried[number].scale, when=ALWAYS, facts=facts)


@torch.no_grad()
def _written(model: Model, batch: Batch, vector: Tensor) -> Array:
    """[example, head] cosine of what each head writes at the end of a prompt with a vector [d_model]."""
    blocks, order = blocks_of(model), {head: i for i, head in enumerate(model.heads)}
    rows = []
    for part in pieces(batch):
        found = np.zeros((len(part), len(order)))

        def each(writes: Writes, found: Array = found) -> None:
            layer = writes.block.attention
            if writes.z is not None and layer is not None:
                written = writes.heads()[:, 0].float()  # [example, head, d_model]
                cosine = torch.cosine_similarity(written, vector.to(written), dim=-1).cpu().numpy()
                found[:, [order[head] for head in layer.heads]] = cosine

        end = part.positions["end"].reshape(-1, 1).to(model.device)
        visit_blocks(model, blocks, part, end, each, logit_positions=end)
        rows.append(found)
    return np.concatenate(rows)


def _concept(model: Model, batch: Batch, y: Tensor) -> Tensor:
    """[d_model] mean stream at the entry of the last block of class 1 minus that of class 0, at the ends of the prompts."""
    last: LayerKey = (model.layers[-1].stack, model.layers[-1].index)
    at = batch.positions["end"].reshape(-1, 1)
    return directions.difference_of_means(model, [last], batch, y, component="residual", positions=at)[last]


def _concept_scores(model: Model, batch: Batch, y: Tensor) -> Array:
    """[head] how far a head writes the concept where it is, and against it where its opposite is: -1 to 1."""
    cosine = _written(model, batch, _concept(model, batch, y))
    found: Array = (cosine[y.numpy() == 1].mean(0) - cosine[y.numpy() == 0].mean(0)) / 2
    return found
