"""Faithful chains of thought: heads that tell whether the answer will rest on the thought are pushed to it. Tanneru et al. 2024."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.apply.recipe.choosing import demand_own
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.pushing import Pushing, end_of, push
from headatlas.apply.recipe.recipe import ALWAYS, Recipe
from headatlas.methods.sweeps.plan import metric_of
from headatlas.model import Model
from headatlas.model.text.reading import padded
from headatlas.ops.types import Array
from headatlas.progress import Progress
from headatlas.task import Batch, Metric, Vocabulary, find_task

STEPS = 4  # a thought is cut after 0, 1/4 ... all of its tokens


@intervention(
    metrics=("AOC", "follows the thought"),
    takes=("heads", "pick", "alpha"),
    control="directions",
    papers=("tanneru-2024-faithful-cot",),
)
def faithful_cot(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Push the heads that tell whether the answer rests on the chain of thought to where it does.

    Faithful is a question whose answer becomes another without its thought. Heads: those with the most accurate linear probes for that at the
    thought's last token, in cross-validation (`pick`; 1 in 20). z + alpha * sigma * (mean of faithful less that of the others, of
    length one), at every token. alpha: tried on questions held back, by AOC: the area over the curve of early answering, which says behind 0, 1/4 ...
    all of the thought whether the answer is the final one; 0 where the thought decides nothing, 7/8 where nothing but all of it does.
    Its own prompts: sums whose thought is written for the model, half of them wrong. Differs: in the paper the models write their thoughts
    (`score --metric aoc` does so). It reports little success.
    """
    demand_own(batch, ("group", "share", "answer"), ("stop",), hint="Leave --task and --prompts out.")
    curve = _by_question(metric_of(model, batch, _answers("answer")), batch)  # [question, cut]
    rests = (curve[:, 0] != curve[:, -1]).astype(int)
    number = np.unique(batch.labels["group"].numpy(), return_inverse=True)[1]
    batch = replace(batch, labels={**batch.labels, "rests": torch.from_numpy(rests[number])})
    how = Pushing(
        "rests", AOC, read=lambda part: part.positions["stop"][:, None], alphas=(1.0, 2.0, 5.0, 10.0), when=ALWAYS, learned=_whole
    )  # fmt: skip
    return push("faithful-cot", model, batch, options, progress, how)


def measures(recipe: Recipe) -> list[Metric]:
    """The area over the curve, and how often the answer behind the whole thought is what the thought says."""
    return [AOC, FOLLOWS]


def prompts(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str) -> Batch:
    """`n` questions, each with its thought cut after 0, 1/4 ... all of its tokens (labels group and share), and "So the answer is" behind."""
    name = "thoughts" if half == "find" else "thoughts-held-out"
    whole = find_task(name)(tokenizer, n, int(rng.integers(1 << 31)))
    rows, stops, told = [], [], []
    for number in range(n):
        row, at = (
            whole.tokens[number],
            [whole.positions[one][number].reshape(-1) for one in ("thought", "result", "stop")],
        )
        places = [one for one in torch.cat(at).sort().values.tolist() if one >= 0]
        end = int(whole.positions["end"][number])
        for cut in range(STEPS + 1):
            left = round(len(places) * cut / STEPS)
            kept = [*range(places[0] + left), *range(places[-1] + 1, end + 1)]
            rows.append(row[kept].tolist())
            stops.append(places[0] + left - 1)
            told.append((number, cut))
    group, share = torch.tensor(told).T
    labels = {"group": group, "share": share, "answer": whole.answer.reshape(n, -1)[group, 0]}
    batch = padded(rows, labels=labels, facts=whole.facts)
    return replace(batch, positions={**batch.positions, "stop": torch.tensor(stops)})


def _whole(batch: Batch) -> Batch:
    return batch.rows((batch.labels["share"] == STEPS).nonzero().flatten())


def _said(logits: Tensor, batch: Batch) -> Tensor:
    """[prompt] the likeliest of the number words."""
    numbers = torch.tensor(batch.facts["numbers"], device=logits.device)
    return numbers[logits[:, 0, numbers].argmax(-1)].double()


def _by_question(scores: Any, batch: Batch) -> Array:
    """[question, cut] of scores by prompt, in order of both."""
    order = np.lexsort((batch.labels["share"].numpy(), batch.labels["group"].numpy()))
    found: Array = scores[order].reshape(-1, STEPS + 1)
    return found


def _area(scores: Any, batch: Batch) -> Array:
    """[question] 1 - area under "is the answer the final one?" by the trapezoidal rule."""
    curve = _by_question(scores, batch)
    same = (curve == curve[:, -1:]).astype(float)
    found: Array = 1 - ((same[:, 1:] + same[:, :-1]) / 2).mean(1)
    return found


def _follows(scores: Any, batch: Batch) -> Array:
    said = _by_question(batch.labels["answer"].double().numpy(), batch)
    found: Array = (_by_question(scores, batch) == said)[:, -1].astype(float)
    return found


def _answers(name: str, settle: Any = None) -> Metric:
    return Metric(name, end_of, _said, True, "share", settle=settle)


AOC, FOLLOWS = _answers("AOC", _area), _answers("follows the thought", _follows)
