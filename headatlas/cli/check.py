"""`headatlas check MODEL`."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.table import Table

from headatlas.cli import _options as option


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
        print(json.dumps({"model": facts, "checks": [vars(line) for line in checks]}, ensure_ascii=False))
    else:
        console = Console()
        console.print("  ".join(f"{name} {value}" for name, value in facts.items()), highlight=False, soft_wrap=True)
        table = Table("check", "result", "value", "bound", "note", box=None, pad_edge=False)
        for line in checks:
            number = ["" if value is None else f"{value:.2g}" for value in (line.value, line.bound)]
            table.add_row(line.name, "ok" if line.ok else "FAILED", *number, line.note)
        console.print(table)
    if not all(line.ok for line in checks):
        raise typer.Exit(1)
