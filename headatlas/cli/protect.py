"""`headatlas protect MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._printing import print_json
from headatlas.render.console import console

library = "headatlas.protected_groups"


def protect(
    model: option.Model,
    echo: Annotated[
        float, typer.Option(help="Share of key-value groups protected for echo heads."), check.share("echo groups")
    ] = 0.01,
    induction: Annotated[
        float,
        typer.Option(help="Share of key-value groups protected for induction heads."),
        check.share("induction groups"),
    ] = 0.14,
    n: Annotated[
        int, typer.Option("--n", help="Texts of random tokens, each given four times."), check.at_least(1, "texts")
    ] = 8,
    seed: option.Seed = 0,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Say which key-value groups must keep their whole cache: those of echo and induction heads, as RazorAttention chooses them.

    Example: headatlas protect smollm2-135m
    """
    import headatlas as ha

    found = ha.protected_groups(
        ha.load(model, dtype=dtype, device=device), echo=echo, induction=induction, n=n, seed=seed
    )
    if as_json:
        print_json(found.data)
        return
    screen = console()
    total = len(found.groups)
    screen.print(
        f"{len(found.protected)} of {total} key-value groups keep their cache: {len(found.by_echo)} by echo, "
        f"{len(found.by_induction)} by induction ({n} texts of {found.facts['period']} tokens, four times)",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table("group", "echo", "head", "induction", "head", "protected by", box=None, pad_edge=False)
    rows = {group: place for place, group in enumerate(found.groups)}
    for group in dict.fromkeys((*found.by_echo, *found.by_induction)):
        i = rows[group]
        why = [name for name, chosen in (("echo", found.by_echo), ("induction", found.by_induction)) if group in chosen]
        table.add_row(
            str(group), f"{found.echo[i]:.3f}", str(found.echo_head[i]), f"{found.induction[i]:.3f}",
            str(found.induction_head[i]), ", ".join(why),
        )  # fmt: skip
    screen.print(table)
