"""`headatlas score MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json


def before(task: str | None, prompts: str | None) -> None:
    """Raise BadInput unless one source of prompts is named."""
    sources.one_source(task=task, prompts=prompts)


def score(
    model: option.Model,
    task: option.Task = None,
    prompts: option.Prompts = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="mc1, mc2, hit@10, icl-score@50-500, aoc, accuracy, log-probability ...; may be given several times; default: "
            "what the benchmark's papers report, else the task's own."
        ),
        Check(check.score),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(help="Heads to remove, all at once (their output is its mean), such as '9.6 9.9'."),
        Check(check.heads),
    ] = None,
    n: option.N = 32,
    seed: option.Seed = 0,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Measure how well a model does on a task or benchmark, and what becomes of it without some heads.

    Example: headatlas score smollm2-135m --task truthfulqa=TruthfulQA.csv --metric mc1 --without "9.6 9.9"

    For Olsson et al. 2022: headatlas score smollm2-135m --task needle-1024 --metric icl-score@50-500 # sentences that have nothing to do with each other; --prompts takes your texts

    For Li et al. 2023: headatlas score smollm2-135m --task truthfulqa=TruthfulQA.csv --metric mc1 --metric mc2

    For Tanneru et al. 2024: headatlas score smollm2-135m --task mcqa-4 --metric aoc --metric accuracy

    For Ren et al. 2024: headatlas score smollm2-135m --task foo-bar --metric format --metric accuracy

    For Yao et al. 2024: headatlas score smollm2-135m --task capitals --metric hit@10
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.render.console import console

    with Shown() as shown:
        found = ha.score(
            ha.load(model, dtype=dtype, device=device), ha.Prompts(task, prompts, n, seed), metric or None,
            without=without, progress=shown,
        )  # fmt: skip
    if as_json:
        print_json(found.data)
        return
    screen = console()
    for one in found.data["scores"]:
        line = f"{one['metric']}: {one['value']:.3f} {one['unit']}".rstrip()
        line += f" ({one['value_low']:.3f} to {one['value_high']:.3f}, n {one['n']})"
        if "change" in one:
            line += f"; without {found.facts['without']}: {one['change']:+.3f} ({one['change_low']:+.3f} to {one['change_high']:+.3f})"
        screen.print(line, highlight=False, markup=False, soft_wrap=True)
