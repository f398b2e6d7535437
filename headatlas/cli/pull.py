"""Fetch a model once, so that it is on this machine and loads without network."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _options as option
from headatlas.cli._printing import print_json
from headatlas.render.escape import say


def pull(
    model: option.Model,
    revision: option.Revision = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Accept weights that can run code when read; off is safer.")
    ] = False,
    as_json: option.Json = False,
) -> None:
    """Fetch and convert a model so that it is there offline; prints where it came from.

    Example: headatlas pull smollm2-135m
    """
    import headatlas as ha

    facts = ha.pull(model, revision=revision, allow_pickle=allow_pickle)
    if as_json:
        print_json(facts, indent=2)
        return
    for name in ("origin", "sha256", "folder", "has_tokenizer", "seconds"):
        say(f"{name.replace('_', ' '):<14}{facts[name]}")
