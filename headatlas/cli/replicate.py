"""`headatlas replicate MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_entries, print_json


def replicate(
    model: Annotated[
        str, typer.Argument(help="The model that the papers studied, as on the Hub: openai-community/gpt2.")
    ],
    claim: Annotated[str | None, typer.Option(help="Only this claim of the catalogue.")] = None,
    atlas: Annotated[
        str | None,
        typer.Option(help="A finished run on this model; otherwise the detectors needed are mined."),
        Check(check.run),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", help="Examples per task, where detectors are mined."), check.at_least(4, "examples")
    ] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the examples.")] = 0,
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

    A claim is replicated where at least half of its heads are observed, and more than chance would give; not testable
    where it names no heads, no detector looks for its head type, or the model cannot be had or does not do the task.

    Example: headatlas replicate openai-community/gpt2 --claim olsson-2022-gpt2-anchor
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.mining.replication import data_of
    from headatlas.render.console import console

    with Shown() as shown:
        outcomes = ha.replicate(
            model, claim=claim, atlas=atlas, n=n, seed=seed, out=out, device=device, dtype=dtype, progress=shown
        )
    if as_json:
        print_json({"model": model, "outcomes": data_of(outcomes)})
        return
    entries = []
    for one in outcomes:
        numbers = [
            f"{name} {value:.2g}"
            for name, value in (("recall", one.recall), ("precision", one.precision), ("p", one.p))
            if value is not None
        ]
        below = [", ".join([*([one.detector] if one.detector else []), one.result, *numbers])]
        entries.append(([one.claim], [*below, *([one.reason] if one.reason else [])]))
    print_entries(["claim"], entries)
    screen = console()
    counts = [
        f"{sum(one.result == word for one in outcomes)} {word}"
        for word in ("replicated", "not replicated", "not testable")
    ]
    screen.print(
        f"{len({one.claim for one in outcomes})} claims, {len(outcomes)} comparisons: {', '.join(counts)}.",
        highlight=False,
        soft_wrap=True,
    )
