"""`headatlas cache write MODEL --plan FILE --text TEXT`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_beside, print_json
from headatlas.errors import BadInput

library = ("headatlas.write_with_cache", "headatlas.read_cache_plan")


def before(plan: str | None, text: list[str] | None, chat: str | None) -> None:
    """Raise BadInput unless a plan and one source of texts are named."""
    if not plan:
        raise BadInput("There is no plan to write with.", "Name one with --plan FILE (headatlas cache plan).")
    sources.one_source(text=text, chat=chat)


def write(
    model: option.Model,
    plan: Annotated[
        str | None, typer.Option("--plan", help="File that `cache plan` wrote."), Check(check.cache_plan)
    ] = None,
    text: option.Text = None,
    chat: option.Chat = None,
    tokens: Annotated[int, typer.Option(help="Tokens to write."), check.at_least(1, "tokens")] = 40,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Go on with a text with the model's own cache and with one that holds less, and say how many bytes each took.

    Example: headatlas cache write smollm2-135m --plan razor.json --text "The red box holds salt. The blue box holds gold. The red box holds"
    """
    import headatlas as ha

    found = ha.write_with_cache(
        ha.load(model, dtype=dtype, device=device), ha.read_cache_plan(str(plan)), text or (), chat=chat, tokens=tokens
    )
    if as_json:
        print_json([one.data for one in found])
        return
    for one in found:
        full, held = f"full cache, {one.full_bytes:,} bytes", f"plan, {one.held_bytes:,} bytes"
        print_beside(one.text, {full: one.full, held: one.held})
