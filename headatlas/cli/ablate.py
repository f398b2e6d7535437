"""`headatlas ablate MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _options as option


def ablate(
    model: option.Model,
    task: option.Task = None,
    prompts: option.Prompts = None,
    edit: Annotated[str, typer.Option(help="mean, zero or resample.")] = "mean",
    mean: Annotated[
        str, typer.Option(help="Mean over all tokens (overall), per position, or per position and template.")
    ] = "overall",
    reference: Annotated[
        int | None, typer.Option(help="Take means over so many other prompts of the task; default: over the same ones.")
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
    as_json: option.EffectsJson = False,
) -> None:
    """Remove each head in turn and measure what becomes of a task: effect, interval and p-value per head.

    Every change is measured exactly, on every prompt. Only what a change touches is computed again.

    Example: headatlas ablate smollm2-135m --task ioi --positions end --triage 30
    """
    import headatlas as ha
    from headatlas.cli._effects import counter, pass_gate, prompts_of, show
    from headatlas.cli._progress import Shown
    from headatlas.errors import BadInput
    from headatlas.heads import parse_heads
    from headatlas.methods.sweeps.ablation import ablate as measure
    from headatlas.methods.sweeps.ablation import reference_of
    from headatlas.methods.sweeps.memory_budget import parse_size
    from headatlas.task import find_task

    budget = parse_size(memory)
    with Shown() as shown:
        loaded = ha.load(model, dtype=dtype, device=device)
        batch, metric, about, gate = prompts_of(loaded, task, prompts, n, seed)
        pass_gate(shown, loaded, gate, task or str(prompts), force)
        other = None
        if reference is not None:
            if task is None:
                raise BadInput("--reference draws prompts of a task.", "Give --task NAME, or leave --reference out.")
            other = reference_of(find_task(task), loaded.tokenizer, reference, seed)
        found = measure(
            loaded, batch, parse_heads(heads) if heads else None, metric=metric, edit=edit, mean=mean, positions=positions, reference=other,
            triage=triage, memory=budget, out=out, about=about, tick=counter(shown, "ablate"),
        )  # fmt: skip
    show(found, top=top, as_json=as_json, out=out)
