"""Interventions by name: fitted on prompts, measured on others, and what a model says with and without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headatlas.apply.going_on import prompts_to_continue, written
from headatlas.apply.recipe.intervention import DRAWS, Intervention, RecipeOptions, find_intervention
from headatlas.apply.recipe.outcome import ELSEWHERE, Outcome
from headatlas.apply.recipe.recipe import Recipe, data_hash
from headatlas.apply.recipe.store import load_recipe, save_recipe
from headatlas.errors import BadInput
from headatlas.methods.prompts import Prompts, prompts_for
from headatlas.model import Model
from headatlas.model.core.pass_context import Inputs
from headatlas.progress import Progress
from headatlas.task import Batch

FIND, TEST = "find", "test"  # halves of prompts that an intervention makes itself
N = 64


@dataclass(frozen=True)
class Fitted:
    """A recipe with the folder that it was kept in, "" for none."""

    recipe: Recipe
    saved: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """What was found, as plain data."""
        recipe = self.recipe
        return {
            "intervention": recipe.intervention, "when": recipe.acts, "changes": recipe.changes,
            "rivals": len(recipe.rivals), **recipe.facts, "saved": self.saved or None,
        }  # fmt: skip


def fit_recipe(
    model: Model,
    name: str,
    batch: Inputs | Prompts | None = None,
    *,
    options: RecipeOptions | None = None,
    n: int = N,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Fit the intervention `name` to a model.

    batch: prompts with what it reads (see its page), or `Prompts`; default: `n` of its own. out: a new folder to keep the
    recipe in. Raises BadInput, StoreError, UnknownName, UnfitTask, UnsupportedModel.
    """
    chosen, options = find_intervention(name), options or RecipeOptions()
    chosen.demand_options(options)
    if out is not None and Path(out).exists():  # before slow work
        raise BadInput(f"{out} exists already.", "Name a folder that does not exist yet.")
    read, source = _prompts(model, chosen, batch, FIND, n, options.seed)
    recipe = chosen.fit(model, read, options, progress)
    recipe = replace(recipe, facts={**recipe.facts, "prompts": source})
    if out is not None:
        save_recipe(recipe, out)
    return Fitted(recipe, "" if out is None else str(out))


def measure_recipe(
    model: Model,
    recipe: Recipe | str | Path,
    batch: Inputs | Prompts | None = None,
    *,
    n: int = N,
    draws: int = DRAWS,
    elsewhere: Sequence[str] = ELSEWHERE,
    force: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Outcome:
    """What a recipe gains on prompts that it was not fitted on, beside rivals of its size, and what it costs elsewhere.

    recipe: itself, or the folder that it is kept in. batch: default `n` prompts of the intervention's own, of the half that fitting leaves
    alone. draws: random rivals, where fitting left none of its own. elsewhere: tasks on which damage is looked for. force: take
    a model of the same shape with other weights. Raises BadInput for the prompts that it was fitted on, StoreError, UnknownName, UnfitTask.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    recipe.demand_model(model, other_weights=force)
    chosen = find_intervention(recipe.intervention)
    read, source = _prompts(model, chosen, batch, TEST, n, seed)
    if data_hash(read) == recipe.facts.get("data", {}).get("sha256"):
        raise BadInput("These are the prompts that the recipe was fitted on.", "Measure it on others.")
    found = chosen.measure(model, recipe, read, draws=draws, elsewhere=elsewhere, seed=seed, progress=progress)
    facts = {
        "intervention": recipe.intervention, "model": model.name, "fitted_on": recipe.facts.get("prompts"),
        "prompts": source, "changes": recipe.changes,
        "rivals": chosen.control, "changed": not recipe.reads,
    }  # fmt: skip
    return replace(found, facts={**facts, **found.facts})


def _prompts(
    model: Model, chosen: Intervention, given: Inputs | Prompts | None, half: str, n: int, seed: int
) -> tuple[Batch, str]:
    """The prompts to fit or to measure on, and what results call them."""
    if given is None:
        own = chosen.hook("prompts")
        if own is not None:
            return own(model.tokenizer, n, np.random.default_rng(seed), half), f"{chosen.name}'s own, half {half}"
        given = Prompts(chosen.tasks[half == TEST], n=n, seed=seed)
    if isinstance(given, Prompts):
        found = prompts_for(model, given, demand=False, settles=True)
        return found.batch, found.name
    return prompts_for(model, given, demand=False, settles=True).batch, "prompts of one's own"


@dataclass(frozen=True)
class Answers:
    """What a model says to a text without and with a recipe."""

    text: str
    without: str
    changed: str
    facts: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {**self.facts, "text": self.text, "without": self.without, "with": self.changed}


def chat(
    model: Model,
    recipe: Recipe | str | Path,
    text: str | Sequence[str] = (),
    *,
    chat: str | Path | None = None,
    tokens: int = 40,
    force: bool = False,
) -> list[Answers]:
    """What a model goes on with, greedily, without and with a recipe: after each text, or each chat of a file.

    tokens: at most so many are written. force: take a model of the same shape with other weights. Raises BadInput, StoreError.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    recipe.demand_change("generate with")
    recipe.demand_model(model, other_weights=force)
    if not model.has_logits or model.kind != "decoder":
        raise BadInput(f"{model.name} does not generate text.", "Use a decoder.")
    found = []
    for ids in prompts_to_continue(model, text, chat, tokens):
        without = written(model, model.hf, ids, tokens)
        with recipe.on(model, other_weights=force) as hf:
            changed = written(model, hf, ids, tokens)
        facts = {"model": model.name, "intervention": recipe.intervention}
        found.append(Answers(model.tokenizer.decode(ids[0].tolist()), without, changed, facts))
    return found
