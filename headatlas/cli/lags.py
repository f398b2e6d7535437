"""`headatlas lags MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._printing import print_json
from headatlas.render.console import console

library = "headatlas.recall_by_lag"


def lags(
    model: option.Model,
    n: Annotated[int, typer.Option("--n", help="Random lists, each given twice."), check.at_least(1, "lists")] = 8,
    seed: option.Seed = 0,
    top: Annotated[int, typer.Option(help="Heads shown."), check.at_least(1, "heads")] = 10,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Attention by lag on lists given twice, and how near each head is to a model of human recall (CMR).

    Example: headatlas lags smollm2-135m

    For Ji-An et al. 2024: headatlas lags smollm2-135m
    """
    import headatlas as ha

    found = ha.recall_by_lag(ha.load(model, dtype=dtype, device=device), n=n, seed=seed)
    if as_json:
        print_json(found.data)
        return
    screen = console()
    near = sum(fit.distance < 0.5 for fit in found.fits)
    screen.print(
        f"{near} of {len(found.heads)} heads are nearer than 0.5 to a curve of CMR ({n} lists of {found.facts['period']} tokens)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table("head", "distance", "beta enc", "beta rec", "gamma", "-1", "0", "+1", "+2", box=None, pad_edge=False)
    middle = len(found.data["lags"]) // 2
    for head, curve, fit in found.nearest(top):
        table.add_row(
            str(head), f"{fit.distance:.3f}", *(f"{x:.1f}" for x in fit[1:]),
            *(f"{x:.3f}" for x in curve[middle - 1 : middle + 3]),
        )  # fmt: skip
    screen.print(table)
