"""`headatlas replicate MODEL`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from headatlas.cli import _options as option


def replicate(
    model: Annotated[
        str, typer.Argument(help="The model that the papers studied, as on the Hub: openai-community/gpt2.")
    ],
    claim: Annotated[str | None, typer.Option(help="Only this claim of the catalogue.")] = None,
    atlas: Annotated[
        str | None, typer.Option(help="A finished run on this model; otherwise the detectors needed are mined.")
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Examples per task, where detectors are mined.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the examples.")] = 0,
    out: Annotated[
        str | None, typer.Option(help="Run folder of what is mined; default atlas/<model>/<run-id>/.")
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
    from headatlas.atlas import Atlas
    from headatlas.cli._progress import Shown
    from headatlas.errors import BadInput, SourceError, UnknownName
    from headatlas.mining import replication

    claims = replication.claims_on(model, claim)
    wanted = replication.needed(claims)
    run = None
    if atlas is not None:
        run = Atlas(atlas).data
        if not replication.same_model(run["model"]["name"], model):
            raise BadInput(f"{atlas} is a run on {run['model']['name']}, not on {model}.", "Name the run's own model.")
    missing = ""
    if run is None and wanted:
        with Shown() as shown:
            try:
                shown.say(f"Loading {replication.checkpoint(model)} ...")
                loaded = ha.load(replication.checkpoint(model), device=device, dtype=dtype)
            except (SourceError, UnknownName) as error:
                missing = f"the checkpoint of {model} cannot be had: {error.message}"
            else:
                run = ha.mine(loaded, wanted, n=n, seed=seed, verdict=False, out=out, progress=shown).data
    if missing:
        outcomes = [
            found if not found.reason.startswith("no run") else replication.untested(one, missing, found.detector)
            for one in claims
            for found in replication.compare([one], None)
        ]
    else:
        outcomes = replication.compare(claims, run)
    if as_json:
        print(json.dumps({"model": model, "outcomes": replication.data_of(outcomes)}, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("claim", "detector", "result", "recall", "precision", "p", "why"):
        table.add_column(name, overflow="fold")
    for one in outcomes:
        numbers = ["" if value is None else f"{value:.2g}" for value in (one.recall, one.precision, one.p)]
        table.add_row(one.claim, one.detector or "", one.result, *numbers, one.reason)
    console = Console()
    console.print(table)
    counts = [
        f"{sum(one.result == word for one in outcomes)} {word}"
        for word in ("replicated", "not replicated", "not testable")
    ]
    console.print(
        f"{len(claims)} claims, {len(outcomes)} comparisons: {', '.join(counts)}.", highlight=False, soft_wrap=True
    )
