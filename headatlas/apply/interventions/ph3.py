"""Knowledge conflicts decided by pruning heads: those that speak for the text, or for memory. Jin et al. 2024 (PH3)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from headatlas.apply.recipe.choosing import best_of, held_back
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.recipe import ALWAYS, Recipe, names, scaled
from headatlas.detectors._measures.knowledge_conflict import conflict_effects
from headatlas.errors import BadInput
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch, Metric

SIDES = ("memory", "context")
COUNTS = (1, 3, 5, 7, 9, 15)


@intervention(
    tasks=("knowledge-conflict", "knowledge-conflict-held-out"),
    metrics=("RM", "RC", "logit of memory over context"),
    takes=("heads", "pick", "toward"),
    control="heads",
    papers=("jin-2024-knowledge-conflict-ph3",),
)
def ph3(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Prune the heads that speak for the context, so that the model answers from memory; or the other way.

    Heads are found by path patching into the logits at the last token: what a head writes there is replaced by what it writes where
    country and claim are others. To use memory (toward) the heads that add most to the claimed answer are pruned, to use the context
    those that add most to the remembered one. How many (1, 3, 5, 7, 9 or 15, up to `pick`) is tried on prompts held back. RM, RC: share of prompts whose most likely next token
    is the remembered answer, or the claimed one. A pruned head's output is zero at every token. Rivals: as many random heads of the same layers. Differs: logits in place of probabilities.
    """
    toward = options.toward or "memory"
    if toward not in SIDES:
        raise BadInput(f"A conflict is not decided toward '{toward}'.", f"Choose one of {', '.join(SIDES)}.")
    for name in ("country", "claim"):
        if name not in batch.positions:
            raise BadInput(f"These prompts have no position '{name}'.", "Take the task knowledge-conflict.")
    learn, choose = held_back(batch, options.seed)
    heads, score = options.heads_of(model), None
    if heads is not None:
        sets = [list(heads)]
    else:
        effects = np.nanmean(conflict_effects(model, learn).claimed, axis=0)
        speaking = effects if toward == "memory" else -effects
        if bool(np.isnan(speaking).any()):
            raise BadInput("In these prompts country and claim cannot be replaced by those of others.", "Give more.")
        order = np.argsort(-speaking, kind="stable")
        counts = [k for k in COUNTS if k <= (options.pick or COUNTS[-1])]
        sets = [[model.heads[int(i)] for i in order[:k]] for k in counts]
        score = [round(float(speaking[i]), 4) for i in order[: counts[-1]]]
    tried = [Recipe("ph3", scaled(model, dict.fromkeys(one, 0.0)), when=ALWAYS) for one in sets]
    metric = _margin(toward)
    number, reached = best_of(model, tried, choose, metric, progress)
    facts = {
        "heads": names(sets[number]), "score": score, "toward": toward,
        "chosen_by": metric.name, "tried": [[len(one), round(v, 4)] for one, v in zip(sets, reached, strict=True)],
    }  # fmt: skip
    return Recipe("ph3", tried[number].scale, when=ALWAYS, facts=facts)


def measures(recipe: Recipe) -> list[Metric]:
    """The share of answers of the side that it is for, that of the other (lower is better), and the margin between both."""
    toward = str(recipe.facts.get("toward", "memory"))
    shares = [_share("RM", "wrong", toward == "memory"), _share("RC", "answer", toward == "context")]
    return [*(shares if toward == "memory" else shares[::-1]), _margin(toward)]


def _end(batch: Batch) -> Tensor:
    return batch.positions["end"].reshape(-1, 1)


def _share(name: str, label: str, wanted: bool) -> Metric:
    """Whether the most likely next token is the answer of one side, which is the wanted one or not."""

    def score(logits: Tensor, batch: Batch) -> Tensor:
        answers = batch.labels[label].reshape(len(batch), -1)
        return (logits[:, 0].argmax(-1, keepdim=True) == answers).any(1).float()

    return Metric(name, _end, score, wanted, "share")


def _margin(toward: str) -> Metric:
    """Logit of the answer of one side minus that of the other's."""
    first, second = ("wrong", "answer") if toward == "memory" else ("answer", "wrong")

    def score(logits: Tensor, batch: Batch) -> Tensor:
        last = logits[:, 0].float()
        mine, other = (
            last.gather(1, batch.labels[name].reshape(len(batch), -1)[:, :1])[:, 0] for name in (first, second)
        )
        return mine - other

    sides = SIDES if toward == "memory" else SIDES[::-1]
    return Metric(f"logit of {sides[0]} over {sides[1]}", _end, score, True, "logits")
