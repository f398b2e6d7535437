"""Answers that are right and in the language of the question: accuracy heads and coherence heads are pushed. Guo et al. 2024 (ASMR)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headatlas.apply.recipe.choosing import demand_own, held_back, two_classes
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.pushing import best_bearable, best_probed, end_of, pushed
from headatlas.apply.recipe.recipe import Recipe, names
from headatlas.apply.steering.direction import find, one_in_twenty
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import Model
from headatlas.progress import Progress
from headatlas.task import Batch, Metric

LABELS = ("accurate", "coherent")
ALPHAS = (0.0, 2.0, 5.0)


@intervention(
    tasks=("cross-lingual", "cross-lingual-held-out"),
    metrics=("right in the question's language", "accuracy", "coherence", "margin"),
    takes=("pick", "alpha"),
    control="directions",
    papers=("guo-2024-asmr-cross-lingual",),
)
def asmr(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Push accuracy heads to right answers and coherence heads to the language of the question.

    What the model prefers of four, the right number and another in either language, says whether a prompt gets a right answer, and one in its
    language. Accuracy heads have the most accurate linear probes for the one at the prompt's end, coherence heads for the other, in cross-validation
    that parts no person asked about (`pick` of each; 1 in 20). z + alpha * sigma * direction (difference of means), with an alpha of its own for either set: all
    pairs of the grid but no push at all are tried on prompts held back, by the margin, at the last token of the prompt and at each generated one. Accuracy, coherence: shares of prompts; margin: logit of the right number
    in the question's language less the highest of the other three. Differs: the paper's abstract was read, not the paper; answers are chosen, not written out.
    """
    demand_own(batch, ("answer", "wrong", "asked"), hint="Take the task cross-lingual.")
    if {part.reshape(len(batch), -1).shape[1] for part in (batch.answer, batch.wrong)} != {2}:
        raise BadInput("These prompts have no answers in two languages.", "Take the task cross-lingual.")
    choice = torch.from_numpy(metric_of(model, batch, _choice("preferred", lambda best: best.double()))).long()
    known = {"accurate": (choice < 2).long(), "coherent": (choice % 2 == 0).long(), "group": batch.labels["asked"]}
    batch = replace(batch, labels={**batch.labels, **known})
    learn, choose = held_back(batch, options.seed)
    at, k = end_of(learn), options.pick or one_in_twenty(model)
    sides, facts = [], dict[str, Any]()
    for label in LABELS:
        y = two_classes(learn, label)
        heads, accuracy = best_probed(model, learn, label, at, k, seed=options.seed, progress=progress)
        sides.append(find(model, heads, learn, y, positions=at, seed=options.seed))
        facts |= {label: names(heads), f"{label}_probes": accuracy}
    tried = []
    for alphas in itertools.product(options.alphas or ALPHAS, repeat=2):
        parts = [pushed("asmr", side, alpha) for side, alpha in zip(sides, alphas, strict=True) if alpha]
        if parts:
            tried.append((alphas, _together(parts)))
    if not tried:
        raise BadInput("A push of 0 is none.", "Give another --alpha.")
    margin = measures(tried[0][1])[-1]
    number, reached, rise = best_bearable(
        model, [one for _, one in tried], choose, margin, seed=options.seed, progress=progress
    )
    facts |= {"alpha": list(tried[number][0]), "chosen_by": margin.name,
              "tried": [[*sizes, round(value, 4)] for (sizes, _), value in zip(tried, reached, strict=True)],
              "loss_on_prose": [round(one, 4) for one in rise]}  # fmt: skip
    return replace(tried[number][1], facts=facts)


def measures(recipe: Recipe) -> list[Metric]:
    """What the model prefers of the four answers, and by how much."""
    return [
        _choice("right in the question's language", lambda best: (best == 0).double()),
        _choice("accuracy", lambda best: (best < 2).double()),
        _choice("coherence", lambda best: (best % 2 == 0).double()),
        Metric("margin", end_of, _margin, True, "logits"),
    ]


def _together(parts: list[Recipe]) -> Recipe:
    """One recipe of several; a head of both is pushed by the sum."""
    moved: dict[HeadId, Tensor] = {}
    for head, value in itertools.chain.from_iterable(one.shift.items() for one in parts):
        moved[head] = moved[head] + value if head in moved else value
    return Recipe("asmr", shift=moved)


def _four(logits: Tensor, batch: Batch) -> Tensor:
    """[example, 4] logits of the right number and of the other, each in the question's language and in the note's."""
    return logits[:, 0].float().gather(1, torch.cat([batch.answer, batch.wrong], 1).to(logits.device))


def _choice(name: str, of: Callable[[Tensor], Tensor]) -> Metric:
    return Metric(name, end_of, lambda logits, batch: of(_four(logits, batch).argmax(1)), True, "share")


def _margin(logits: Tensor, batch: Batch) -> Tensor:
    four = _four(logits, batch)
    return four[:, 0] - four[:, 1:].amax(1)
