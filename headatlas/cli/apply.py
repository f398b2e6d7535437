"""`headatlas apply NAME fit|test|export MODEL`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headatlas import choices
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.errors import BadInput

if TYPE_CHECKING:
    from headatlas.apply.recipe.intervention import RecipeOptions
    from headatlas.methods.prompts import Prompts

library = ("headatlas.fit_recipe", "headatlas.apply.recipe.workflow.measure_recipe", "headatlas.apply.recipe.export.export_recipe")  # fmt: skip
ACTIONS = ("fit", "test", "export")
RECIPE = typer.Option("--recipe", help="Folder that `apply NAME fit` made.")


def before(name: str, action: str, task: str | None, prompts: str | None, recipe: str | None, out: str | None) -> None:
    """Raise BadInput or UnknownName for a name, an action, or what an action needs and has not."""
    check.intervention(name)
    if action not in ACTIONS:
        raise BadInput(f"'{action}' is nothing to do with an intervention.", f"Choose one of {', '.join(ACTIONS)}.")
    if task and prompts:
        raise BadInput("Both --task and --prompts are given.", "Choose one.")
    if action != "fit" and not recipe:
        raise BadInput(f"There is no recipe to {action}.", "Name its folder with --recipe.")
    if action == "fit" and recipe:
        raise BadInput("A recipe is made by fit, and one is given.", "Leave --recipe out, or write test or export.")
    if action == "export" and not out:
        raise BadInput("Say where to.", "Name a new folder with --out.")


def apply(
    name: Annotated[str, typer.Argument(help="Intervention (headatlas list interventions).")],
    action: Annotated[str, typer.Argument(help="fit, test or export.")],
    model: option.Model,
    recipe: Annotated[str | None, RECIPE, Check(check.recipe)] = None,
    task: option.Task = None,
    prompts: Annotated[
        str | None, typer.Option(help="File of prompts with what the intervention reads."), Check(sources.prompts)
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Prompts, or questions."), check.at_least(1, "prompts")] = 64,
    heads: Annotated[
        str | None, typer.Option(help="Heads to change; default: its own choice."), Check(check.heads)
    ] = None,
    pick: Annotated[int | None, typer.Option(help="How many heads it chooses.")] = None,
    alpha: Annotated[
        str | None, typer.Option(help="Strengths to try on prompts held back."), Check(check.alphas)
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(help="How directions are found, such as mean or probe."),
        Check(choices.STEERING.demand),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Which label of the prompts tells two classes.")] = None,
    toward: Annotated[str | None, typer.Option(help="To which side, such as memory or context.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of learning, where there is any."), check.at_least(1, "steps")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Rate of learning.")] = None,
    draws: Annotated[
        int, typer.Option(help="Random directions or heads to compare with."), check.at_least(1, "random draws")
    ] = 5,
    elsewhere: Annotated[str, typer.Option(help="Tasks on which damage is looked for.")] = "ioi,facts-held-out",
    out: Annotated[
        str | None,
        typer.Option("--out", help="New folder for the recipe, or for what is exported."),
        Check(check.new_folder),
    ] = None,
    force: option.OtherWeights = False,
    seed: option.Seed = 0,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Fit what a paper does with heads to a model, measure it on prompts that it has not seen, or take it elsewhere.

    test compares with random directions or heads of the same size, and looks for damage on prose and on other tasks.
    export writes a plain transformers module that needs no headatlas.

    Example: headatlas apply iti fit smollm2-135m --out my-iti
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    given = None if task is None and prompts is None else ha.Prompts(task, prompts, n=n, seed=seed)
    options = ha.RecipeOptions(
        heads=heads or None, pick=pick, alpha=alpha, direction=direction, label=label, toward=toward, steps=steps, rate=rate,
        draws=draws, seed=seed,
    )  # fmt: skip
    _demand_used(name, action, options, given)
    opened = ha.load(model, dtype=dtype, device=device)
    if action == "export":
        files = ha.export_recipe(opened, str(recipe), str(out), force=force)
        print_json({"written": files}) if as_json else _say("\n".join(files))
        return
    with Shown() as shown:
        if action == "fit":
            found: Any = ha.fit_recipe(opened, name, given, options=options, n=n, out=out, progress=shown)
        else:
            others = elsewhere.replace(",", " ").split()
            found = ha.measure_recipe(
                opened, str(recipe), given, n=n, draws=draws, elsewhere=others, force=force, seed=seed, progress=shown
            )
    if as_json:
        print_json(found.data)
    elif action == "fit":
        _show_fit(found.data)
    else:
        show_outcome(found.data)


def _demand_used(name: str, action: str, options: RecipeOptions, prompts: Prompts | None) -> None:
    """Raise BadInput for options that this action or this intervention would leave unread."""
    from dataclasses import fields

    import headatlas as ha

    chosen = ha.find_intervention(name)
    if action == "fit":
        chosen.demand_options(options)
        return
    unread = [f"--{one.name}" for one in fields(options)
              if one.name not in ("draws", "seed") and getattr(options, one.name) != one.default]  # fmt: skip
    if action == "export" and prompts is not None:
        unread.append("--task or --prompts")
    if unread:
        raise BadInput(f"{', '.join(unread)} says how a recipe is fitted.", f"Leave it out of {action}.")


def _say(line: str) -> None:
    from headatlas.render.console import console

    console().print(line, highlight=False, markup=False, soft_wrap=True)


def _show_fit(data: dict[str, Any]) -> None:
    changes = data["changes"]
    shown = " ".join(changes[:20]) + (f" ... {len(changes)} in all" if len(changes) > 20 else "")
    does = "reads" if data["when"] == "reads only" else "changes"
    _say(
        f"{data['intervention']} of {data['model']} {does} {shown}" + ("" if does == "reads" else f" ({data['when']})")
    )
    for key in ("alpha", "direction", "chosen_by", "layer", "loss", "threshold", "keep"):
        if data.get(key) is not None:
            _say(f"{key.replace('_', ' ')}: {data[key]}")
    _say(f"fitted on {data['data']['n']} prompts ({data['prompts']}, sha256 {data['data']['sha256'][:12]})")
    if data["saved"] is not None:
        _say(f"Kept in {data['saved']}")
    else:
        _say("Not kept: --out FOLDER keeps it for test, export and chat.")


def show_outcome(data: dict[str, Any]) -> None:
    """Print gains and damage, a line each: a table of as many numbers breaks on narrow terminals."""
    rivals = {
        "directions": "random directions of the same lengths", "heads": "draws of as many random heads",
        "fitted": "draws of as many random heads, fitted alike", "shuffled": "orders of the same numbers",
    }[data["rivals"]]  # fmt: skip
    _say(
        f"{data['intervention']} on {data['gains'][0]['n']} held-out examples ({data['prompts']}), beside {data['n_rivals']} {rivals}"
    )
    for row in data["gains"]:
        _say(f"{row['metric']}: {row['base']:.3f} without, {row['value']:.3f} with ({row['verdict']})")
        _say(
            f"  gain {row['change']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}), largest random {max(row['random']):+.3f}"
        )
        _say(f"  over the mean of random {row['over']:+.3f} ({row['over_low']:+.3f} to {row['over_high']:+.3f})")
    _say(
        "elsewhere:"
        if data["damage"]
        else "nothing was measured elsewhere"
        if data["changed"]
        else "the model is left as it is"
    )
    for row in data["damage"]:
        _say(f"  {row['name']}: {row['change']:+.3f} {row['unit']} ({row['low']:+.3f} to {row['high']:+.3f})")
    for name, why in data["skipped"].items():
        _say(f"note: {name} was skipped: {why}")
    _say(f"{data['intervention']}: {data['verdict']}")
