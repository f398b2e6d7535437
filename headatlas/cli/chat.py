"""`headatlas chat MODEL --with RECIPE`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_beside, print_json
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
    import headatlas as ha

    found = ha.chat(
        ha.load(model, dtype=dtype, device=device), str(recipe), text or (), chat=chat, tokens=tokens, force=force
    )
    if as_json:
        print_json([one.data for one in found])
        return
    for one in found:
        print_beside(one.text, {"without": one.without, f"with {one.facts['intervention']}": one.changed})
