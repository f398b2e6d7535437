"""`headatlas ablate MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas import choices
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check

library = ("headatlas.ablate", "headatlas.engines.choosing.engine")
runs = {
    "zero-ablation": "MODEL --task ioi --edit zero",
    "mean-ablation": "MODEL --task ioi --edit mean",
}  # methods of the catalogue that this carries out

before = sources.before_measuring


def ablate(
    model: option.Model,
    task: option.Task = None,
    prompts: option.Prompts = None,
    text: option.Text = None,
    chat: option.Chat = None,
    counterfactual: option.Counterfactual = None,
    metric: option.Metric = None,
    edit: Annotated[
        str,
        typer.Option(help="mean, zero, resample, or input: of what the head reads, the mean by position."),
        Check(choices.EDIT.demand),
    ] = "mean",
    mean: Annotated[
        str,
        typer.Option(help="Mean over all tokens (overall), per position, or per position and template."),
        Check(choices.MEAN.demand),
    ] = "overall",
    reference: Annotated[
        int | None,
        typer.Option(help="Take means over so many other prompts of the task; default: over the same ones."),
        check.at_least(1, "other prompts"),
    ] = None,
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
    """Remove each head in turn and measure what becomes of a task: effect, interval and p-value per head.

    Every change is measured exactly, on every prompt. Only what a change touches is computed again.

    Example: headatlas ablate smollm2-135m --task ioi --positions end --triage 30

    For Crosbie and Shutova 2024: headatlas ablate smollm2-135m --task repetition --edit input --force # no built-in model does the task, so that the line insists and its effects mean little; a larger model that does it needs no --force
    """
    import headatlas as ha
    from headatlas.cli._effects import show
    from headatlas.cli._progress import Shown

    given = sources.Measured(task, prompts, text, chat, counterfactual).given(n, seed, metric, force=force)
    options = ha.SweepOptions(memory, out, triage)
    with Shown() as shown, ha.engine(engine, workers=workers, threads=threads, address=address):
        found = ha.ablate(
            ha.load(model, dtype=dtype, device=device), given, heads or None, edit=edit, mean=mean, positions=positions,
            reference=reference, options=options, progress=shown,
        )  # fmt: skip
    show(found, top=top, as_json=as_json, out=out)
