"""`headatlas attribute MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas import choices
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check


def before(
    task: str | None,
    prompts: str | None,
    text: list[str] | None,
    chat: str | None,
    counterfactual: list[str] | None,
    positions: str | None,
    method: str,
) -> None:
    """Raise BadInput unless one source of prompts is named."""
    sources.Measured(task, prompts, text, chat, counterfactual).demand(positions, paired=method != "direct")


def attribute(
    model: option.Model,
    task: option.Task = None,
    prompts: option.Prompts = None,
    text: option.Text = None,
    chat: option.Chat = None,
    counterfactual: option.Counterfactual = None,
    metric: option.Metric = None,
    method: Annotated[
        str,
        typer.Option(help="direct or atp (a number per head), eap or eap-ig (a number per edge)."),
        Check(choices.ATTRIBUTION.demand),
    ] = "direct",
    direction: Annotated[
        str,
        typer.Option(help="denoising (clean into corrupted) or noising (corrupted into clean); not for direct."),
        Check(choices.DIRECTION.demand),
    ] = "denoising",
    component: Annotated[
        str, typer.Option(help="For atp: z (a head's output), q, k or v."), Check(choices.ATTRIBUTED.demand)
    ] = "z",
    positions: Annotated[str, typer.Option(help="For atp: all, end, or another named position of the task.")] = "all",
    steps: Annotated[
        int, typer.Option(help="For eap-ig: runs that the gradient is averaged over."), check.at_least(1, "steps")
    ] = 5,
    verify: Annotated[
        int, typer.Option(help="Measure the K parts ranked highest exactly."), check.at_least(0, "parts")
    ] = 0,
    n: option.N = 32,
    seed: option.Seed = 0,
    memory: option.Memory = "4GB",
    out: Annotated[str | None, typer.Option(help="JSON file to write every part to."), Check(check.file)] = None,
    force: option.Force = False,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Estimate how much each head, or each edge between parts, matters for the answer, from few runs.

    direct: what a head writes straight into the answer's logit. atp: attribution patching. eap, eap-ig: the same for edges.
    16 parts spread over all ranks are measured exactly, and how well the estimates rank them is printed.

    Example: headatlas attribute smollm2-135m --task ioi --method atp --verify 10
    """
    import headatlas as ha
    from headatlas.cli._attribution import show
    from headatlas.cli._progress import Shown

    given = sources.Measured(task, prompts, text, chat, counterfactual).given(n, seed, metric, force=force)
    options = ha.AttributionOptions(steps, memory=memory, out=out)
    with Shown() as shown:
        found = ha.attribute(
            ha.load(model, dtype=dtype, device=device), given, method=method, direction=direction, component=component,
            positions=positions, verify=verify, options=options, progress=shown,
        )  # fmt: skip
    show(found, top=top, as_json=as_json, out=out)
