"""`headatlas ablate MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer


def ablate(
    model: Annotated[str, typer.Argument(help="Hub id, local folder, .gguf file or built-in model.")],
    task: Annotated[str | None, typer.Option(help="Built-in task (headatlas list tasks).")] = None,
    prompts: Annotated[
        str | None, typer.Option(help="JSONL file: clean, answer, wrong, and corrupted if wanted.")
    ] = None,
    edit: Annotated[str, typer.Option(help="mean, zero or resample.")] = "mean",
    mean: Annotated[
        str, typer.Option(help="Mean over all tokens (overall), per position, or per position and template.")
    ] = "overall",
    reference: Annotated[
        int | None, typer.Option(help="Take means over so many other prompts of the task; default: over the same ones.")
    ] = None,
    positions: Annotated[str, typer.Option(help="all, end, each, or another named position of the task.")] = "all",
    heads: Annotated[str | None, typer.Option(help="Only these heads, such as '9.6 9.9'; default: every head.")] = None,
    triage: Annotated[
        int | None, typer.Option(help="Measure only the K changes that a gradient ranks highest.")
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Prompts of a built-in task.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the prompts.")] = 0,
    memory: Annotated[str, typer.Option(help="Memory that may be used beside the weights.")] = "4GB",
    out: Annotated[
        str | None, typer.Option(help="Folder to keep the result in; interrupted runs go on from there.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on although the model cannot do the task.")] = False,
    top: Annotated[int, typer.Option(help="Rows of the table.")] = 15,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print effects.json instead of the table.")] = False,
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
    from headatlas.methods.ablation import ablate as measure
    from headatlas.methods.ablation import reference_of
    from headatlas.methods.memory import parse_size
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
