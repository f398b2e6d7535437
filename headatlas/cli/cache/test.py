"""`headatlas cache test MODEL --plan FILE`."""

# ruff: noqa: PT028  (`test` is a command, no test)
from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.cli.cache import _options as caches
from headatlas.errors import BadInput
from headatlas.render.console import console

library = ("headatlas.compare_cache_plans", "headatlas.read_cache_plan")


def before(plan: list[str] | None) -> None:
    """Raise BadInput unless there is a plan."""
    if not plan:
        raise BadInput("There is no plan to test.", "Name one or more with --plan FILE (headatlas cache plan).")
    caches.named(plan)


def test(
    model: option.Model,
    plan: caches.Plans = None,
    task: caches.Needles = "needle-2048",
    n: Annotated[int, typer.Option("--n", help="Needles to look for."), check.at_least(1, "needles")] = 100,
    n_prose: Annotated[int, typer.Option(help="Passages of prose to go on with."), check.at_least(0, "passages")] = 6,
    draws: Annotated[
        int,
        typer.Option(help="Plans with random groups beside each."),
        check.at_least(1, "draws"),
    ] = 3,
    seed: option.Seed = 0,
    out: Annotated[
        str | None,
        typer.Option("--out", help="Write results here (JSON); interrupted runs go on."),
        Check(check.new_file),
    ] = None,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Measure what cache plans cost: needles no longer found, loss of prose, beside random groups and a window for all.

    Example: headatlas cache test smollm2-135m --plan razor.json --task needle-1024 --n 20
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    plans = {name: ha.read_cache_plan(path) for name, path in caches.named(plan or []).items()}
    with Shown() as progress:
        found = ha.compare_cache_plans(
            ha.load(model, dtype=dtype, device=device), plans, task=task, n=n, n_prose=n_prose, draws=draws, seed=seed, out=out,
            progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(found.data)
        return
    screen = console()
    facts = found.facts
    screen.print(
        f"{facts['model']} on {facts['task']} ({facts['tokens']:,} tokens): {n} needles, {n_prose} passages; each text read once, cut, then asked",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table("plan", "bytes", "needles found", "change (95%)", "loss of prose (95%)", box=None, pad_edge=False)
    for row in found.rows:
        table.add_row(
            row["plan"], f"{row['held']:.3f}",
            f"{row['accuracy']:.2f}" if "accuracy" in row else "-",
            _change(row, "accuracy_change", 1, 2) if "accuracy" in row else "-",
            _change(row, "loss_change", 100, 1, "%") if "loss_change" in row else "-",
        )  # fmt: skip
    screen.print(table)
    if out is not None:
        screen.print(f"Written: {out}", highlight=False, soft_wrap=True)


def _change(row: dict[str, float], name: str, factor: float, digits: int, unit: str = "") -> str:
    value, low, high = (factor * row[one] for one in (name, f"{name}_low", f"{name}_high"))
    return f"{value:+.{digits}f}{unit} ({low:+.{digits}f} to {high:+.{digits}f})"
