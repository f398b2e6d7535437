"""`headatlas unknown MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json

library = "headatlas.unknown_heads"


def unknown(
    model: option.Model,
    corpus: option.Corpus = None,
    causal: Annotated[
        bool, typer.Option("--causal", help="Remove each head at the events of its behaviours too.")
    ] = False,
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
            "--out", help="New folder for the pages of these heads, by group; interrupted work goes on from there."
        ),
        Check(check.new_folder),
    ] = None,
    as_json: option.Json = False,
) -> None:
    """Which heads matter on text although no known kind of reading explains them?

    Example: headatlas unknown smollm2-135m --corpus notes/ --out unknown
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    options = ha.PageOptions(tokens=tokens, length=length, every=every, sample=sample, seed=seed)
    with Shown() as shown:
        found = ha.unknown_heads(
            ha.load(model, dtype=dtype, device=device), corpus, options=options, causal=causal, out=out, progress=shown
        )
    if as_json:
        print_json(found.data)
        return
    from headatlas.render.console import console

    for line in found.lines():
        console().print(line, highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        console().print(f"Written to {out}/index.html", highlight=False, markup=False, soft_wrap=True)
