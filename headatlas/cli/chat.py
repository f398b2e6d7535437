"""`headatlas chat MODEL --with RECIPE`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.errors import BadInput


def before(recipe: str | None, text: list[str] | None, chat: str | None) -> None:
    """Raise BadInput unless a recipe and one source of texts are named."""
    sources.one_source(text=text, chat=chat)
    if recipe is None:
        raise BadInput("There is no recipe.", "Name its folder: --with RECIPE.")


def chat(
    model: option.Model,
    recipe: Annotated[
        str | None, typer.Option("--with", help="Folder of a recipe (headatlas apply NAME fit)."), Check(check.recipe)
    ] = None,
    text: option.Text = None,
    chat: option.Chat = None,
    tokens: Annotated[int, typer.Option(help="Tokens to write."), check.at_least(1, "tokens")] = 40,
    force: option.OtherWeights = False,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Go on with a text without and with a recipe, and show both.

    Example: headatlas chat smollm2-135m --with my-iti --text "The capital of France is"
    """
    from rich.table import Table

    import headatlas as ha
    from headatlas.render.console import console
    from headatlas.render.escape import shown

    found = ha.chat(
        ha.load(model, dtype=dtype, device=device), str(recipe), text or (), chat=chat, tokens=tokens, force=force
    )
    if as_json:
        print_json([one.data for one in found])
        return
    from rich.text import Text

    screen = console()
    for one in found:
        screen.print(shown(one.text, lines=True), highlight=False, markup=False, soft_wrap=True)
        table = Table("without", f"with {one.facts['intervention']}", box=None, pad_edge=False, expand=True)
        table.add_row(*(Text(shown(answer, lines=True)) for answer in (one.without, one.changed)))
        screen.print(table)
