"""`headatlas syntax MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headatlas.choices import ROW_DISTANCE, SYNTAX, WORD_ROWS
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json
from headatlas.render.escape import say


def syntax(
    model: option.Model,
    treebank: Annotated[
        str | None,
        typer.Option(help="CoNLL-U file, or file of trees in brackets; default: sentences of a built-in grammar."),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(help=f"Which of {', '.join(SYNTAX.values)}; may be given several times."),
        Check(SYNTAX.demand),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(help="Sentences (default: all of a file, 500 made ones)."),
        check.at_least(1, "sentences"),
    ] = None,
    rows: Annotated[
        str, typer.Option(help="Of a split word: mean over its pieces, or its last piece."), Check(WORD_ROWS.demand)
    ] = "mean",
    special: Annotated[bool, typer.Option(help="Put start and end tokens around each sentence.")] = True,
    distance: Annotated[
        str, typer.Option(help="Of attention rows, for constituents: hellinger or jsd."), Check(ROW_DISTANCE.demand)
    ] = "hellinger",
    bias: Annotated[
        float, typer.Option(help="Pull of constituents to the right-branching tree."), check.number("bias")
    ] = 0.0,
    punctuation: Annotated[bool, typer.Option(help="Let trees find the edges of punctuation too.")] = False,
    map_: Annotated[
        str | None,
        typer.Option("--map", help="SVG file to draw the heads in, likeness as nearness (adds --measure likeness)."),
        Check(check.map_file),
    ] = None,
    seed: option.Seed = 0,
    top: option.Top = 5,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Which heads follow syntax? Dependencies, trees, constituents, coreference and roles, each beside its chance level.

    Example: headatlas syntax minilm-l6 --treebank en_pud-ud-test.conllu

    For Pande et al. 2021: headatlas syntax minilm-l6 --measure sieve

    For the map of Clark et al. 2019: headatlas syntax minilm-l6 --n 50 --map heads.svg
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    if map_ is not None:
        from headatlas.render import plots

        plots.require()

    given = ha.read_treebank(treebank) if treebank is not None else None  # before torch is imported and a model loaded
    from headatlas.treebanks.as_data import data_of
    from headatlas.treebanks.run import DEFAULT

    asked = list(measure or DEFAULT)
    if map_ is not None:
        asked += [one for one in ("surface", "likeness") if one not in asked]
    options = ha.SyntaxOptions(rows=rows, special=special, distance=distance, bias=bias, punctuation=punctuation)
    with Shown() as shown:
        found = ha.syntax(
            ha.load(model, dtype=dtype, device=device), given, measures=asked, n=n, seed=seed,
            options=options, progress=shown,
        )  # fmt: skip
    if map_ is not None:
        found.save_map(map_)
    if as_json:
        print_json(data_of(found))
        return
    from headatlas.cli._syntax_tables import print_syntax

    print_syntax(data_of(found), treebank, top)
    if map_ is not None:
        say(f"Written: {Path(map_).resolve()}")
