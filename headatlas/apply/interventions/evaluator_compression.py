"""Prompts cut down to what evaluator heads attend to from their end. Fei et al. 2025 (EHPC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.attention_reads import EVALUATOR, attention_from_last, demand_one_stack, kept_of, utility
from headatlas.apply.recipe.choosing import demand_own
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.outcome import Gain, gains_of
from headatlas.apply.recipe.recipe import Recipe, names
from headatlas.heads import HeadId
from headatlas.methods.sweeps.plan import metrics_of
from headatlas.model import Model
from headatlas.model.text.reading import padded
from headatlas.ops.types import Array
from headatlas.progress import Progress
from headatlas.task import Batch, Metric
from headatlas.task.answers import find_metric

KEEP = 0.3
SHARE = 0.25  # of a layer's heads: the paper takes 8 of 32


@intervention(
    tasks=("needle", "needle-held-out"),
    metrics=("evidence kept", "accuracy", "logit-difference", "accuracy beside the whole prompt"),
    takes=("heads", "pick"),
    control="heads",
    papers=("ehpc-evaluator-heads",),
)
def evaluator_compression(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Keep those tokens of a long prompt that a few heads attend to from its end. Changes nothing in the model.

    A head's score is the attention of the last 16 tokens to the evidence in prompts in which it is hidden (position needle). Heads: the best quarter of the one layer
    whose heads together score highest (`pick`: how many of it). A token's utility is their summed attention from the last 16 tokens, averaged over 8 neighbours; 30% of the tokens are kept, in their order,
    the last 16 and the first among them (`compress_prompt`). Without: as many tokens at random. Evidence kept: share of its tokens. Accuracy beside the whole
    prompt: what is lost or won by the cut. Rivals: other heads of the layer. Differs: prompts of some 500 tokens; all layers run for the scores; the first token is not scored.
    """
    demand_one_stack(model)
    demand_own(batch, ("answer", "wrong"), ("needle",), hint="Take the task needle.")
    score = (attention_from_last(model, batch) * _evidence(batch)[:, None]).sum(-1).mean(0)  # [head]
    heads = options.heads_of(model)
    if heads is None:
        layer = max(model.layers, key=lambda one: sum(float(score[model.heads.index(head)]) for head in one.heads))
        k = options.pick or max(1, round(SHARE * layer.n_heads))
        best = sorted(layer.heads, key=lambda head: -float(score[model.heads.index(head)]))
        heads = tuple(best[:k])
    facts = {
        "heads": names(heads),
        "keep": KEEP,
        "score": [round(float(score[model.heads.index(head)]), 4) for head in heads],
    }
    return Recipe(EVALUATOR, reads=heads, facts=facts)


def gains(model: Model, recipe: Recipe, batch: Batch, rivals: Sequence[Recipe]) -> list[Gain]:
    """What answers are worth on prompts cut by the heads (with), beside cut at random (without) and whole."""
    measured: list[Metric] = [find_metric("accuracy"), find_metric("logit-difference")]

    def cut(score: Tensor) -> list[Array]:
        kept = kept_of(batch, score, KEEP)
        needle = _evidence(batch)
        left = [float(one[kept[i]].sum()) / float(one.sum()) for i, one in enumerate(needle)]
        return [np.array(left), *metrics_of(model, _cut(batch, kept), measured)]

    given = attention_from_last(model, batch)

    def by(heads: Sequence[HeadId]) -> list[Array]:
        return cut(utility(model, batch, given, heads))

    free = torch.isfinite(utility(model, batch, given, recipe.reads))
    drawn = torch.rand(free.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    base, value = cut(drawn.masked_fill(~free, -torch.inf)), by(recipe.reads)
    random = [by(rival.reads) for rival in rivals]
    shown = [Metric("evidence kept", measured[0].positions, measured[0].score, True, "share"), *measured]
    found = gains_of(shown, base, value, random)
    whole = metrics_of(model, batch, measured)[0]
    beside = replace(measured[0], name="accuracy beside the whole prompt")
    return [*found, *gains_of([beside], [whole], value[1:2], [one[1:2] for one in random])]


def _evidence(batch: Batch) -> Tensor:
    """[example, token] whether a token belongs to the evidence."""
    columns = torch.arange(batch.tokens.shape[1])
    return (columns == batch.positions["needle"][..., None]).any(1)


def _cut(batch: Batch, kept: Sequence[Tensor]) -> Batch:
    """The prompts with the tokens that are kept."""
    cut = padded(
        [row[one].tolist() for row, one in zip(batch.tokens, kept, strict=True)],
        labels=dict(batch.labels),
        facts=batch.facts,
    )
    ends = batch.positions["end"].reshape(-1).tolist()
    moved = torch.tensor([int((one <= end).sum()) - 1 for one, end in zip(kept, ends, strict=True)])
    return replace(cut, positions={"end": moved})
