"""`headatlas check MODEL`."""

from __future__ import annotations

import typer
from rich.table import Table

from headatlas.cli import _options as option
from headatlas.cli._printing import print_json
from headatlas.render.console import console


def check(
    model: option.Model,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    revision: option.Revision = None,
    as_json: option.Json = False,
) -> None:
    """Check that reading a model's attention changes nothing and misses no layer, and that edits really act.

    Exit code 1 where a check fails; such a model is refused by every other command.

    Example: headatlas check smollm2-135m
    """
    import headatlas as ha

    facts, checks = ha.check(model, revision=revision, dtype=dtype, device=device)
    if as_json:
        print_json({"model": facts, "checks": [vars(line) for line in checks]})
    else:
        screen = console()
        screen.print("  ".join(f"{name} {value}" for name, value in facts.items()), highlight=False, markup=False)
        table = Table("check", "result", "value", "bound", "note", box=None, pad_edge=False)
        for line in checks:
            number = ["" if value is None else f"{value:.2g}" for value in (line.value, line.bound)]
            table.add_row(line.name, "ok" if line.ok else "FAILED", *number, line.note)
        screen.print(table)
    if not all(line.ok for line in checks):
        raise typer.Exit(1)
