"""`headatlas path MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas import choices
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check

library = "headatlas.path_patch"

runs = {
    "naive-activation-patching": "MODEL --task ioi --receivers logits"
}  # methods of the catalogue that this carries out

before = sources.before_pairs


def path(
    model: option.Model,
    task: option.PairedTask = None,
    prompts: option.PairedPrompts = None,
    text: option.Text = None,
    chat: option.Chat = None,
    counterfactual: option.Counterfactual = None,
    metric: option.Metric = None,
    senders: Annotated[
        str | None,
        typer.Option(help="Only these heads send, such as '9.6 9.9'; default: every head, one by one."),
        Check(check.heads),
    ] = None,
    receivers: Annotated[
        list[str] | None,
        typer.Option(
            help="logits, mlp:5, or q, k or v of heads that receive together: 'q:9.6 9.9'; 'v:7.3@s2' at positions of its "
            "own. May be given several times; default: logits."
        ),
        Check(check.receiver),
    ] = None,
    group: Annotated[
        bool, typer.Option("--group", help="Keys or values named by one head are those of its whole KV group.")
    ] = False,
    positions: Annotated[
        str, typer.Option(help="Where it is sent and received: all, end, or another named position of the task.")
    ] = "all",
    direction: Annotated[
        str,
        typer.Option(help="noising (counterfactual into clean, as in the paper) or denoising (the reverse)."),
        Check(choices.DIRECTION.demand),
    ] = "noising",
    mlps: Annotated[
        str, typer.Option(help="MLPs between sender and receiver: recomputed or frozen."), Check(choices.MLPS.demand)
    ] = "recomputed",
    n: option.N = 32,
    seed: option.Seed = 0,
    memory: option.Memory = "4GB",
    out: option.EffectsOut = None,
    force: option.Force = False,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.EffectsJson = False,
) -> None:
    """Follow what each head tells later heads, an MLP or the logits directly, with all other heads held (path patching).

    One row is one path from a sender to a receiver: how the metric changes when only that message is exchanged for the
    one of the other prompt.

    Example: headatlas path smollm2-135m --task ioi --positions end --receivers logits --receivers 'q:23.3 24.4'
    """
    import headatlas as ha
    from headatlas.cli._effects import show
    from headatlas.cli._progress import Shown

    given = sources.Measured(task, prompts, text, chat, counterfactual).given(n, seed, metric, force=force)
    options = ha.RunOptions(memory, out)
    with Shown() as shown:
        found = ha.path_patch(
            ha.load(model, dtype=dtype, device=device), given, senders or None, receivers or ["logits"], direction=direction,
            positions=positions, mlps=mlps, group=group, options=options, progress=shown,
        )  # fmt: skip
    show(found, top=top, as_json=as_json, out=out)
