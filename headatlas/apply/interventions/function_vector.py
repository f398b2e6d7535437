"""Function vectors: what a few heads write when a task is shown by examples, added where there is none. Todd et al. 2024."""

from __future__ import annotations

import numpy as np

from headatlas.apply.recipe.choosing import best_of, held_back, strongest
from headatlas.apply.recipe.intervention import RecipeOptions, intervention
from headatlas.apply.recipe.recipe import Recipe, names
from headatlas.errors import BadInput
from headatlas.methods.function_vectors import SKILL, ends, indirect_effects, vector_of
from headatlas.methods.sweeps.matched_controls import matched
from headatlas.model import Model
from headatlas.model.text.reading import padded
from headatlas.progress import Progress
from headatlas.task import Batch
from headatlas.task.answers import find_metric

PICK = 10
DEPTHS = (0.3, 0.4, 0.5, 0.6, 0.7)  # shares of the layers at which the vector is tried


@intervention(
    tasks=("icl-country-capital", "icl-country-capital-zero-shot-held-out"),
    metrics=("accuracy", "log-probability"),
    takes=("heads", "pick", "alpha"),
    control="fitted",
    papers=("todd-2024-function-vectors",),
)
def function_vector(model: Model, batch: Batch, options: RecipeOptions, progress: Progress) -> Recipe:
    """Add the sum of what a few heads write on average at the end of prompts with examples, where prompts have none.

    Heads: those that raise the answer's probability most when their average is put into prompts whose examples contradict
    each other (`pick`; 10). alpha: times the vector (1). The layer is tried at five depths on queries held back, without their examples. It is
    added at the last token of the prompt and at each generated one. Rivals: vectors of as many random heads of the same layers.
    Prompts: of an in-context task, with positions input and query, and counterfactual. Differs: the paper takes a fixed layer, a
    third of the way up.
    """
    if batch.counterfactual is None or not {"input", "query"} <= batch.positions.keys():
        raise BadInput(
            "A function vector is read off prompts of examples, with positions input and query, and a counterfactual.",
            "Take a task such as icl-antonym.",
        )
    learn, choose = held_back(batch, options.seed)
    found = ends(model, learn)
    skill = float(found.right.float().mean())
    if skill < SKILL:
        raise BadInput(
            f"{model.name} gets {skill:.0%} of these prompts right; its averages say nothing of the task.",
            f"Choose a task of which it does {SKILL:.0%} or more.",
        )
    heads = options.heads_of(model)
    if heads is None:
        (effects,) = indirect_effects(model, learn, [found.mean(found.right)])
        heads, _ = strongest(model, effects.mean(0), options.pick or PICK)
    stack, vector = model.stacks[0], vector_of(heads, found.writes)
    layers = sorted({round(depth * (model.n_layers - 1)) for depth in DEPTHS})
    tried = [
        (layer, alpha, Recipe("function-vector", stream={(stack, layer): alpha * vector.cpu()}))
        for layer in layers
        for alpha in options.alphas or [1.0]
    ]
    metric = find_metric("log-probability")
    number, reached = best_of(model, [one for *_, one in tried], _bare(choose), metric, progress)
    layer, alpha, recipe = tried[number]
    rng = np.random.default_rng(options.seed)
    free = sorted(set(model.heads) - set(heads))
    rivals = [alpha * vector_of(sorted(matched(heads, free, rng)), found.writes).cpu() for _ in range(options.draws)]
    facts = {
        "heads": names(heads), "layer": layer, "alpha": alpha, "skill": round(skill, 4), "chosen_by": metric.name,
        "tried": [[at, size, round(value, 4)] for (at, size, _), value in zip(tried, reached, strict=True)],
    }  # fmt: skip
    return Recipe(
        "function-vector", stream=recipe.stream, facts=facts,
        rivals=tuple(Recipe("function-vector", stream={(stack, layer): one}) for one in rivals),
    )  # fmt: skip


def _bare(batch: Batch) -> Batch:
    """The queries without their examples: what stands before the first input, the query, and what stands behind it."""
    rows = []
    for number, (row, mask) in enumerate(zip(batch.tokens, batch.mask, strict=True)):
        start = int(mask.long().argmax())
        places = {name: batch.positions[name][number] for name in ("input", "query")}
        first, query = (value[value >= 0] for value in places.values())
        end = int(batch.positions["end"][number])
        rows.append([*row[start : int(first.min())].tolist(), *row[int(query.min()) : end + 1].tolist()])
    return padded(rows, labels=dict(batch.labels), facts=batch.facts)
