"""`headatlas patch MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas import choices
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check

library = ("headatlas.patch", "headatlas.engines.choosing.engine")
runs = {
    "naive-activation-patching": "MODEL --task ioi --positions end"
}  # methods of the catalogue that this carries out

before = sources.before_pairs


def patch(
    model: option.Model,
    task: option.PairedTask = None,
    prompts: option.PairedPrompts = None,
    text: option.Text = None,
    chat: option.Chat = None,
    counterfactual: option.Counterfactual = None,
    metric: option.Metric = None,
    direction: Annotated[
        str,
        typer.Option(help="denoising (clean into corrupted) or noising (corrupted into clean)."),
        Check(choices.DIRECTION.demand),
    ] = "denoising",
    component: Annotated[
        str,
        typer.Option(help="What is put in: z (a head's output), q, k, v or pattern."),
        Check(choices.PATCHED.demand),
    ] = "z",
    positions: option.Positions = "all",
    heads: option.Heads = None,
    triage: option.Triage = None,
    n: option.N = 32,
    seed: option.Seed = 0,
    memory: option.Memory = "4GB",
    out: option.EffectsOut = None,
    force: option.Force = False,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    engine: option.Engine = "local",
    workers: option.Workers = None,
    threads: option.Threads = None,
    address: option.Address = None,
    as_json: option.EffectsJson = False,
) -> None:
    """Carry each head's value from one prompt over to another and measure how much of the answer comes with it.

    Denoising asks what suffices, noising what is needed. The share is (patched - corrupted) / (clean - corrupted) when
    denoising and (patched - clean) / (clean - corrupted) when noising.

    Example: headatlas patch smollm2-135m --task ioi --positions s2 --direction noising
    """
    import headatlas as ha
    from headatlas.cli._effects import show
    from headatlas.cli._progress import Shown

    given = sources.Measured(task, prompts, text, chat, counterfactual).given(n, seed, metric, force=force)
    options = ha.SweepOptions(memory, out, triage)
    with Shown() as shown, ha.engine(engine, workers=workers, threads=threads, address=address):
        found = ha.patch(
            ha.load(model, dtype=dtype, device=device), given, heads or None, direction=direction, component=component,
            positions=positions, options=options, progress=shown,
        )  # fmt: skip
    show(found, top=top, as_json=as_json, out=out)
