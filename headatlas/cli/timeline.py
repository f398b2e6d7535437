"""`headatlas timeline CHECKPOINTS`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json


def timeline(
    source: Annotated[
        list[str],
        typer.Argument(help="Folder of checkpoints, run folders, several models, or org/name@step1000,step2000."),
        Check(check.checkpoints),
    ],
    detector: option.Detectors = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Only the detectors of this task; may be given several times."),
        Check(check.task),
    ] = None,
    n: option.PerTask = 32,
    seed: option.SeedOfExamples = 0,
    out: Annotated[
        str | None,
        typer.Option(help="Folder to keep the numbers, a page and a picture in; the same command goes on from there."),
        Check(check.folder),
    ] = None,
    dtype: option.Dtype = "auto",
    device: option.Device = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read .bin checkpoints, which can run code.")
    ] = False,
    top: option.Top = 20,
    as_json: option.Json = False,
) -> None:
    """When did each head come to be what it is? Detectors over the checkpoints of a training.

    Heads are born when they first pass a detector and die when they no longer do; the step has an interval.

    Example: headatlas timeline toys/repeated --detector induction --detector previous-token --out timelines/repeated
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    with Shown() as shown:
        found = ha.timeline(
            source, detector or None, tasks=task or None, n=n, seed=seed, out=out, dtype=dtype, device=device,
            allow_pickle=allow_pickle, progress=shown,
        )  # fmt: skip
    if as_json:
        print_json(found.data)
        return
    from rich.table import Table

    from headatlas.mining.timeline.page import COLUMNS, change_rows, headline, row_of
    from headatlas.render.console import console

    screen = console()
    for line in headline(found):
        screen.print(line, soft_wrap=True)
    rows = [row_of(life, found) for life in found.lives]
    for columns, all_rows in ((COLUMNS, rows), (("head", "was", "became", "when"), change_rows(found))):
        if all_rows:
            table = Table(*columns, box=None, pad_edge=False)
            for row in all_rows[:top]:
                table.add_row(*row)
            screen.print(table)
        if len(all_rows) > top:
            screen.print(f"and {len(all_rows) - top} more (--top, --json)", soft_wrap=True)
    if out is not None:
        screen.print(f"Written to {out}", soft_wrap=True)
