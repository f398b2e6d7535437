"""`headatlas cache export PLAN --out FOLDER`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli._checks import Check
from headatlas.cli.cache import _options as caches
from headatlas.errors import BadInput
from headatlas.render.console import console

library = "headatlas.export_duo_attention"


def before(out: str | None) -> None:
    """Raise BadInput unless a folder is named."""
    if not out:
        raise BadInput("Say where to.", "Name a new folder with --out.")


def export(
    plan: caches.Plan,
    out: Annotated[str | None, typer.Option("--out", help="New folder."), Check(check.new_folder)] = None,
) -> None:
    """Write a plan as a DuoAttention pattern (`full_attention_heads.tsv`, `config.json`), which DuoAttention and kvpress read.

    Example: headatlas cache export razor.json --out razor-pattern
    """
    import headatlas as ha

    share = ha.export_duo_attention(ha.read_cache_plan(plan), str(out))
    console().print(
        f"Written: {out}. Its reader makes {share:.4f} of the groups streaming ones (kvpress: head_compression_ratio={share:.4f}).",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
