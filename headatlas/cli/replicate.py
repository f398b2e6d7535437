"""`headatlas replicate MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_entries, print_json

library = ("headatlas.replicate", "headatlas.mining.claims.board.write_board")


def replicate(
    model: Annotated[
        str,
        typer.Argument(
            help="The model that the papers studied (gpt2, openai-community/gpt2), or a folder with a copy."
        ),
    ],
    known_as: option.KnownAs = None,
    claim: Annotated[str | None, typer.Option(help="Only this claim of the catalogue.")] = None,
    atlas: Annotated[
        str | None,
        typer.Option(help="A finished run on this model; otherwise the detectors needed are mined."),
        Check(check.run),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", help="Examples per task, where detectors are mined."), check.at_least(4, "examples")
    ] = 32,
    seed: option.SeedOfExamples = 0,
    verdict: Annotated[
        bool,
        typer.Option("--verdict/--no-verdict", help="Remove the heads that are observed, to see whether they act."),
    ] = True,
    board: Annotated[
        str | None,
        typer.Option(help="Put the outcomes on this board: a page FILE.md, with FILE.json beside it."),
        Check(check.page),
    ] = None,
    by: Annotated[str | None, typer.Option(help="With --board: who made it, for a board that is handed in.")] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Run folder of what is mined; default atlas/<model>/<run-id>/."),
        Check(check.folder),
    ] = None,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Compare what papers say of a model's heads with the heads that detectors observe.

    A claim is replicated where at least half of its heads are observed, more than chance would give, and act when they are
    removed; weakened where it is more than chance, but fewer than half; not testable where it names no heads, no detector
    looks for its head type, or the model cannot be had or does not do the task.

    Example: headatlas replicate openai-community/gpt2 --claim olsson-2022-gpt2-anchor
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.mining.claims.board import write_board
    from headatlas.mining.claims.outcomes import RESULTS, data_of
    from headatlas.render.console import console

    options = ha.ReplicationOptions(n, seed, verdict, out, device, dtype)
    with Shown() as shown:
        outcomes = ha.replicate(model, claim=claim, atlas=atlas, known_as=known_as, options=options, progress=shown)
    if board is not None:
        write_board(outcomes, board, by=by)
    if as_json:
        print_json({"model": model, "run": dict(outcomes[0].run), "outcomes": data_of(outcomes)})
        return
    entries = []
    for one in outcomes:
        numbers = [
            f"{name} {value:.2g}"
            for name, value in (("recall", one.recall), ("precision", one.precision), ("p", one.p))
            if value is not None
        ]
        if one.low is not None and one.high is not None:
            numbers[0] += f" ({one.low:.2g} to {one.high:.2g})"
        below = [", ".join([*([one.detector] if one.detector else []), one.result, *numbers])]
        entries.append(([one.claim], [*below, *([one.reason] if one.reason else [])]))
    print_entries(["claim"], entries)
    screen = console()
    found = [one.result for one in outcomes]
    counts = [f"{found.count(word)} {word}" for word in RESULTS if word in found]
    screen.print(
        f"{len({one.claim for one in outcomes})} claims, {len(outcomes)} comparisons: {', '.join(counts)}.",
        highlight=False,
        soft_wrap=True,
    )
    if board is not None:
        screen.print(f"Written to {board}", highlight=False, soft_wrap=True)
