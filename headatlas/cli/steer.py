"""`headatlas steer MODEL`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headatlas import choices
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json, say_start_end
from headatlas.errors import BadInput

runs = {
    "directional-addition": "MODEL --task movie-review --label positive --measure-task movie-review-held-out",
    "directional-subtraction": "MODEL --task movie-review --label positive --measure-task movie-review-held-out --remove",
}  # methods of the catalogue that this carries out


def before(task: str | None, prompts: str | None, heads: str | None, layers: str | None) -> None:
    """Raise BadInput unless one source of labelled prompts is named, and one kind of place to push."""
    sources.one_source(task=task, prompts=prompts)
    if heads and layers:
        raise BadInput("Both --heads and --layers are given.", "Choose one.")


def steer(
    model: option.Model,
    prompts: Annotated[
        str | None, typer.Option(help="JSONL file to find directions on: text, label, group."), Check(sources.labelled)
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Built-in task with labels to find directions on."), Check(check.task)
    ] = None,
    label: Annotated[str | None, typer.Option(help="Which label of the task, such as truth.")] = None,
    group: Annotated[str | None, typer.Option(help="Label of what must not be parted when heads are picked.")] = None,
    toward: Annotated[str | None, typer.Option(help="The class to steer to; default: the last one.")] = None,
    position: Annotated[
        str, typer.Option(help="Which position's outputs are compared: end, or another of the task.")
    ] = "end",
    heads: Annotated[
        str | None, typer.Option(help="Heads to push; default: those with the best probes."), Check(check.heads)
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Push the residual stream of these layers instead.")] = None,
    pick: Annotated[int | None, typer.Option(help="How many best-probed heads to push; default: 1 in 20.")] = None,
    direction: Annotated[
        str, typer.Option(help="mean (difference of means), probe, pca or random."), Check(choices.STEERING.demand)
    ] = "mean",
    alpha: Annotated[
        str, typer.Option(help="How far, in standard deviations; several to compare."), Check(check.alphas)
    ] = "5,10,15",
    remove: Annotated[bool, typer.Option("--remove", help="Take the direction away as well.")] = False,
    measure: Annotated[
        str | None, typer.Option(help="JSONL file to measure on: clean, answer, wrong."), Check(sources.answers)
    ] = None,
    measure_task: Annotated[str | None, typer.Option(help="Built-in task to measure on."), Check(check.task)] = None,
    metric: option.Metric = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Push at every token, not only where the answer is given.")
    ] = False,
    draws: Annotated[
        int, typer.Option(help="Random directions to compare with."), check.at_least(1, "random directions")
    ] = 5,
    generate: Annotated[
        str | None, typer.Option(help="A prompt to continue with and without the largest push.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to generate."), check.at_least(1, "tokens")] = 40,
    save: Annotated[
        str | None, typer.Option(help="Folder to keep the edit of the largest push in."), Check(check.folder)
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Prompts of built-in tasks."), check.at_least(1, "prompts")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of prompts, splits and random directions.")] = 0,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Push heads along the direction that tells two kinds of text apart, and see what it does and what it costs.

    Prompts to measure on give the answer that the push should favour as "answer". Where a task to measure on has the same
    label, its logit difference is counted for the class that is steered to.

    Example: headatlas steer smollm2-135m --task movie-review --label positive --measure-task movie-review-held-out
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    options = ha.SteerOptions(
        toward=toward, position=position, heads=heads or None, layers=layers or None, pick=pick, direction=direction,
        alpha=alpha, remove=remove, measure=measure, measure_task=measure_task, metric=metric, everywhere=everywhere, draws=draws,
        generate=generate, tokens=tokens, save=save, n=n, seed=seed,
    )  # fmt: skip
    given = ha.LabelledPrompts(task, prompts, label, group, n, seed)
    with Shown() as shown:
        found = ha.steer(ha.load(model, dtype=dtype, device=device), given, options=options, progress=shown)
    if as_json:
        print_json(found.data())
    else:
        _show(found.data())


def _show(data: dict[str, Any]) -> None:
    from rich.table import Table

    from headatlas.render.console import console

    screen = console()

    def say(line: str) -> None:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)

    if "measured" in data:
        found = data["measured"]
        say(f"{found['metric']} without steering: {found['base']:.3f} {found['unit']} ({found['n_examples']} prompts)")
        table = Table(
            "alpha",
            "with",
            "change",
            "95% interval",
            "random",
            "largest random",
            "loss on prose",
            "",
            box=None,
            pad_edge=False,
        )
        for row in found["doses"]:
            name = "removed" if row["alpha"] is None else f"{row['alpha']:g}"
            interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
            table.add_row(
                name, f"{row['value']:.3f}", f"{row['change']:+.3f}", interval, f"{row['random']:+.3f}", f"{row['random_reach']:.3f}",
                f"{row['harm']:+.3f}", "beyond random" if row["beyond"] else "",
            )  # fmt: skip
        screen.print(table)
    if "generated" in data:
        found = data["generated"]
        say(f"without: {found['prompt']}{found['without']}")
        say(f"alpha {found['alpha']:g}: {found['prompt']}{found['with']}")
    if "saved" in data:
        say(
            f"Kept in {data['saved']}: load_edits gives the edit for every token; with positions it acts where you say."
        )
    say_start_end(data)
