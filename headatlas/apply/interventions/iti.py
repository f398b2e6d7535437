"""Inference-time intervention: heads in which truth can be read are pushed to its side. Li et al. 2023."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from headatlas.apply.recipe.choosing import answered, best_of, held_back, last_told, two_classes
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.recipe import Recipe, names
from headatlas.apply.steering.direction import Steering, find, one_in_twenty, spread_along
from headatlas.choices import STEERING
from headatlas.errors import BadInput
from headatlas.methods.labels import labels_of
from headatlas.methods.probing import CrossValidation, probe
from headatlas.model import Model
from headatlas.model.text.reading import padded
from headatlas.progress import Progress
from headatlas.task import Batch, Vocabulary
from headatlas.task.answers import demand_measurable, find_metric
from headatlas.tasks._prompts import halved, shuffled, table

ALPHAS = (2.0, 5.0, 10.0, 15.0)
RIVALS = 3  # false answers beside the true one


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
    demand_measurable(find_metric("mc2"), batch)
    y = two_classes(batch, "right")
    learn, choose = held_back(batch, options.seed)
    heads = options.heads_of(model)
    accuracy: list[float] | None = None
    if heads is None:
        labels = labels_of(learn, "right")
        every = CrossValidation(shuffles=1, test=0, seed=options.seed)
        # The last token of the text, whatever the batch calls its end.
        ends = replace(learn, positions={**learn.positions, "told": last_told(learn)[:, 0]})
        found = probe(model, ends, labels, position="told", validation=every, progress=progress)
        best = found.scores.top(options.pick or one_in_twenty(model))
        heads, accuracy = tuple(line.head for line in best), [round(line.score, 4) for line in best]
    kinds = [options.direction] if options.direction else ["mean", "probe"]
    told, made = two_classes(learn, "right"), []
    for kind in kinds:
        STEERING.demand(kind)
        found_directions = find(model, heads, learn, told, kind, positions=last_told(learn), seed=options.seed)
        made.append((kind, _with_own_spread(model, found_directions, learn, options.seed)))
    tried = [(kind, alpha, _recipe(steering, alpha)) for kind, steering in made for alpha in options.alphas or ALPHAS]
    metric = find_metric("mc2")
    number, reached = best_of(model, [one for *_, one in tried], choose, metric, progress)
    kind, alpha, recipe = tried[number]
    facts = {
        "heads": names(heads), "accuracy": accuracy, "direction": kind, "alpha": alpha, "chosen_by": metric.name,
        "classes": [int((y == 0).sum()), int((y == 1).sum())],
        "tried": [[one, size, round(value, 4)] for (one, size, _), value in zip(tried, reached, strict=True)],
    }  # fmt: skip
    return replace(recipe, facts=facts)


def _recipe(steering: Steering, alpha: float) -> Recipe:
    moved = {head: alpha * steering.spread[head] * value.cpu() for head, value in steering.directions.items()}
    return Recipe("iti", shift=moved)  # type: ignore[arg-type]


def _with_own_spread(model: Model, steering: Steering, batch: Batch, seed: int) -> Steering:
    """The same directions with sigma over question, answer and another question, at its last token, as the paper has it."""
    front = len(model.tokenizer.front)
    ends = batch.positions["end"].reshape(len(batch)).tolist()
    texts = [row[mask].tolist() for row, mask in zip(batch.tokens, batch.mask, strict=True)]
    starts = batch.mask.long().argmax(1).tolist()
    other = np.random.default_rng(seed).permutation(len(texts))
    rows = [[*text, *texts[j][front : ends[j] - starts[j] + 1]] for text, j in zip(texts, other.tolist(), strict=True)]
    if max(map(len, rows)) > model.tokenizer.context:
        raise BadInput(
            f"Two of these prompts together are longer than the {model.tokenizer.context} tokens of {model.name}."
        )
    both = padded(rows)
    at = both.positions["end"][:, None]
    heads = [key for key in steering.directions]
    spread = spread_along(model, heads, both, steering.directions, "z", at)  # type: ignore[arg-type]
    return replace(steering, spread=spread)


def prompts(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str) -> Batch:
    """`n` questions about facts, each with its true answer and three false ones, which are true answers of other questions."""
    return answered(tokenizer, _items(n, rng, half))


def _items(n: int, rng: np.random.Generator, half: str) -> Iterator[tuple[str, str, bool, int]]:
    questions = []
    for relation in table("facts")["relations"].values():
        known = dict(halved(relation["pairs"].items(), half))
        objects = sorted(set(known.values()))
        if len(objects) > RIVALS:
            questions += [(relation["templates"][0], subject, value, objects) for subject, value in known.items()]
    for number, (template, subject, value, objects) in enumerate(shuffled(questions, rng)[:n]):
        prompt = template.replace("{subject}", subject)
        wrong = [str(one) for one in rng.permutation([one for one in objects if one != value])[:RIVALS]]
        yield from ((prompt, answer, answer == value, number) for answer in (value, *wrong))
