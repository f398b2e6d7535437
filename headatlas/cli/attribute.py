"""`headatlas attribute MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _options as option


def attribute(
    model: option.Model,
    task: option.Task = None,
    prompts: Annotated[
        str | None, typer.Option(help="JSONL file: clean, answer, wrong, and corrupted but for direct.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="direct or atp (a number per head), eap or eap-ig (a number per edge).")
    ] = "direct",
    direction: Annotated[
        str, typer.Option(help="denoising (clean into corrupted) or noising (corrupted into clean); not for direct.")
    ] = "denoising",
    component: Annotated[str, typer.Option(help="For atp: z (a head's output), q, k or v.")] = "z",
    positions: Annotated[str, typer.Option(help="For atp: all, end, or another named position of the task.")] = "all",
    steps: Annotated[int, typer.Option(help="For eap-ig: runs that the gradient is averaged over.")] = 5,
    verify: Annotated[int, typer.Option(help="Measure the K parts ranked highest exactly.")] = 0,
    n: option.N = 32,
    seed: option.Seed = 0,
    memory: option.Memory = "4GB",
    out: Annotated[str | None, typer.Option(help="JSON file to write every part to.")] = None,
    force: option.Force = False,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Guess how much each head, or each edge between parts, matters for the answer, from few runs.

    direct: what a head writes straight into the answer's logit. atp: attribution patching. eap, eap-ig: the same for edges.
    16 parts spread over all ranks are measured exactly, and how well the guesses rank them is printed.

    Example: headatlas attribute smollm2-135m --task ioi --method atp --verify 10
    """
    from pathlib import Path

    import headatlas as ha
    from headatlas.cli._attribution import show
    from headatlas.cli._effects import counter, pass_gate, prompts_of
    from headatlas.cli._progress import Shown
    from headatlas.methods.attribution.attribute import attribute as guess
    from headatlas.methods.attribution.attribute import data_of
    from headatlas.methods.sweeps.memory_budget import parse_size
    from headatlas.store import write_json

    budget = parse_size(memory)
    with Shown() as shown:
        loaded = ha.load(model, dtype=dtype, device=device)
        batch, metric, about, gate = prompts_of(loaded, task, prompts, n, seed)
        pass_gate(shown, loaded, gate, task or str(prompts), force)
        found = guess(
            loaded, batch, method=method, metric=metric, direction=direction, component=component, positions=positions, steps=steps,
            verify=verify, memory=budget, about={"model": loaded.name, **about}, tick=counter(shown, "measure"),
        )  # fmt: skip
    if out is not None:
        write_json(Path(out), data_of(found))
    show(found, top=top, as_json=as_json, out=out)
