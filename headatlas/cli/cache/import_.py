"""`headatlas cache import MODEL FOLDER --out FILE`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli.cache import _options as caches
from headatlas.errors import BadInput
from headatlas.render.console import console

library = ("headatlas.import_duo_attention", "headatlas.save_cache_plan")


def before(folder: str, out: str | None) -> None:
    """Raise BadInput unless a file is named, StoreError unless the folder holds a pattern."""
    if not out:
        raise BadInput("Say where to.", "Name a new file with --out.")
    check.pattern(folder)


def import_(
    model: option.Model,
    folder: Annotated[str, typer.Argument(help="Folder with full_attention_heads.tsv and config.json.")],
    keep: Annotated[
        float,
        typer.Option(help="Share of key-value groups that keep everything, by their gates."),
        check.share("groups"),
    ] = 0.5,
    out: caches.PlanOut = None,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
) -> None:
    """Make a plan of a DuoAttention pattern.

    Example: headatlas cache import smollm2-135m razor-pattern --keep 0.25 --out again.json
    """
    import headatlas as ha

    found = ha.import_duo_attention(ha.load(model, dtype=dtype, device=device), folder, keep=keep)
    ha.save_cache_plan(found, str(out))
    console().print(
        f"{len(found.whole)} of {len(found.groups)} key-value groups keep everything. Written: {out}",
        highlight=False,
        soft_wrap=True,
    )
