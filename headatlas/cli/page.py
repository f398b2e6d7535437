"""`headatlas page MODEL [HEADS]`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.errors import BadInput

library = "headatlas.head_pages"


def before(heads: str | None, every_head: bool) -> None:
    """Raise BadInput unless heads are named, or all are asked for."""
    if (heads is None) != every_head:
        raise BadInput("Say which heads.", "Name some, such as '18.6 20.2', or ask for --all.")
    if heads is not None:
        check.heads(heads)


def page(
    model: option.Model,
    heads: Annotated[
        str | None, typer.Argument(help="Heads whose pages are made, such as '18.6 20.2' or '18.*'.")
    ] = None,
    corpus: option.Corpus = None,
    every_head: Annotated[
        bool, typer.Option("--all", help="Pages of all heads; the 20 that write most are removed too.")
    ] = False,
    no_causal: Annotated[
        bool, typer.Option("--no-causal", help="Leave out what removing heads at events changes.")
    ] = False,
    atlas: Annotated[
        str | None,
        typer.Option(
            help="A run folder of `headatlas mine`: do its roles go over from the task to the text? Its report links the pages."
        ),
        Check(check.run),
    ] = None,
    generate: Annotated[
        int,
        typer.Option(help="Read what the model writes instead: so many tokens behind the beginning of each text."),
        check.at_least(0, "tokens"),
    ] = 0,
    tokens: option.CorpusTokens = 16_384,
    length: option.WindowLength = None,
    every: option.Every = 8,
    sample: option.EventSample = 1024,
    seed: option.Seed = 0,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    out: Annotated[
        str | None,
        typer.Option(
            "--out", help="New folder for the pages (HTML, JSON, Parquet); interrupted work goes on from there."
        ),
        Check(check.new_folder),
    ] = None,
    as_json: option.Json = False,
) -> None:
    """What do heads do all day on your own text, how many things, and what if one is removed just there?

    Example: headatlas page smollm2-135m 18.6 --corpus notes/ --out pages
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    options = ha.PageOptions(tokens=tokens, length=length, every=every, sample=sample, seed=seed, generate=generate)
    with Shown() as shown:
        found = ha.head_pages(
            ha.load(model, dtype=dtype, device=device), corpus, None if every_head else heads, causal=not no_causal, atlas=atlas,
            options=options, out=out, progress=shown,
        )  # fmt: skip
    if as_json:
        print_json(found.data)
        return
    from headatlas.pages.result import summary_lines
    from headatlas.pages.run import writing_most
    from headatlas.render.console import console

    screen = console()
    screen.print(repr(found), highlight=False, markup=False, soft_wrap=True)
    told = list(found.pages) if not every_head else list(writing_most(found))
    for line in summary_lines(found, told):
        screen.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(told) < len(found.pages):
        rest = f"{len(told)} heads that write most are shown; --out or --json has all {len(found.pages)}"
        screen.print(rest, highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        linked = "" if atlas is None else f", linked from {ha.Atlas(atlas).run}/report.html"
        screen.print(f"Written to {out}/index.html{linked}", highlight=False, markup=False, soft_wrap=True)
