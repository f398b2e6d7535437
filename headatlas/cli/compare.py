"""`headatlas compare A B`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headatlas.choices import COMPARISON_FILE, DTYPE
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json

if TYPE_CHECKING:
    from headatlas.mining.comparison.changes import Comparison

library = ("headatlas.compare", "headatlas.mining.comparison.page.write_comparison")
FAILED = 3  # exit code where more heads changed than may


def _page(path: str) -> None:
    """Raise BadInput for an ending in which no comparison is written, StoreError where no file can be."""
    COMPARISON_FILE.demand(Path(path).suffix)
    check.file(path)


def before(a: str, b: str) -> None:
    """Raise UnknownName or BadInput for a name that leads neither to a run nor to a model."""
    for one in (a, b):
        if not Path(one).expanduser().is_dir():
            check.model(one)


def compare(
    a: Annotated[str, typer.Argument(help="What was there before: a run folder of `headatlas mine`, or a model.")],
    b: Annotated[str, typer.Argument(help="What was made of it: another run folder, or another model.")],
    detector: option.Detectors = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Of models: only the detectors of this task; may be given several times."),
        Check(check.task),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", help="Of models: examples per task; default 32."), check.at_least(4, "examples")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of models: seed of the examples; default 0.")] = None,
    no_verdict: Annotated[bool, typer.Option("--no-verdict", help="Of models: leave the causal tests out.")] = False,
    fail_over: Annotated[
        int | None,
        typer.Option("--fail-over", help="Exit with 3 where more than this many heads changed."),
        check.at_least(0, "heads"),
    ] = None,
    top: option.Top = 20,
    device: option.Device = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="Of models: auto, float32, bfloat16 or float16."),
        Check(DTYPE.demand),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Also write a page (.html, .md) or the data (.json)."),
        Check(_page),
    ] = None,
    as_json: option.Json = False,
) -> None:
    """Which heads changed from a model to what was made of it: fine-tuned, quantised, pruned?

    Two finished runs that were mined alike; or two models, which are mined alike first.

    Example: headatlas compare runs/base runs/tuned --out changed.html --fail-over 0
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.mining.comparison.page import write_comparison

    with Shown() as shown:
        found = ha.compare(
            a, b, detector or None, tasks=task or None, n=n, seed=seed, verdict=False if no_verdict else None,
            device=device, dtype=dtype, progress=shown,
        )  # fmt: skip
    if out is not None:
        write_comparison(found, out)
    if as_json:
        print_json(found.data)
    else:
        _show(found, top, out)
    if fail_over is not None and len(found.heads) > fail_over:
        raise typer.Exit(FAILED)


def _show(found: Comparison, top: int, out: str | None) -> None:
    from rich.table import Table

    from headatlas.mining.comparison.page import COLUMNS, headline, row_of
    from headatlas.render.console import console

    screen = console()
    for line in headline(found):
        screen.print(line, soft_wrap=True)
    for rows, more in (
        (found.changes, "changes"),
        (found.other_verdicts, "heads with verdicts that differ, which is not tested"),
    ):
        if rows:
            table = Table(*COLUMNS, box=None, pad_edge=False)
            for row in rows[:top]:
                table.add_row(*row_of(row))
            screen.print(table)
        if len(rows) > top:
            screen.print(f"and {len(rows) - top} other {more} (--top, --json)", soft_wrap=True)
    if out is not None:
        screen.print(f"Written to {out}", soft_wrap=True)
