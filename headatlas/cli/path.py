"""`headatlas path MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer


def path(
    model: Annotated[str, typer.Argument(help="Hub id, local folder, .gguf file or built-in model.")],
    task: Annotated[str | None, typer.Option(help="Built-in task with counterfactual prompts, such as ioi.")] = None,
    prompts: Annotated[str | None, typer.Option(help="JSONL file: clean, corrupted, answer, wrong.")] = None,
    senders: Annotated[
        str | None, typer.Option(help="Only these heads send, such as '9.6 9.9'; default: every head, one by one.")
    ] = None,
    receivers: Annotated[
        list[str] | None,
        typer.Option(
            help="logits, mlp:5, or q, k or v of heads that receive together: 'q:9.6 9.9'; 'v:7.3@s2' at positions of its "
            "own. May be given several times; default: logits."
        ),
    ] = None,
    group: Annotated[
        bool, typer.Option("--group", help="Keys or values named by one head are those of its whole KV group.")
    ] = False,
    positions: Annotated[
        str, typer.Option(help="Where it is sent and received: all, end, or another named position of the task.")
    ] = "all",
    direction: Annotated[
        str, typer.Option(help="noising (counterfactual into clean, as in the paper) or denoising (the reverse).")
    ] = "noising",
    mlps: Annotated[str, typer.Option(help="MLPs between sender and receiver: recomputed or frozen.")] = "recomputed",
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
    """Follow what each head tells later heads, an MLP or the logits directly, with all other heads held (path patching).

    One row is one path from a sender to a receiver: how the metric changes when only that message is exchanged for the
    one of the other prompt.

    Example: headatlas path smollm2-135m --task ioi --positions end --receivers logits --receivers 'q:23.3 24.4'
    """
    import headatlas as ha
    from headatlas.cli._effects import counter, pass_gate, prompts_of, show
    from headatlas.cli._progress import Shown
    from headatlas.heads import parse_heads
    from headatlas.methods.memory import parse_size
    from headatlas.methods.path_patching import path_patch

    budget = parse_size(memory)
    with Shown() as shown:
        loaded = ha.load(model, dtype=dtype, device=device)
        batch, metric, about, gate = prompts_of(loaded, task, prompts, n, seed)
        pass_gate(shown, loaded, gate, task or str(prompts), force)
        found = path_patch(
            loaded, batch, parse_heads(senders) if senders else None, receivers or ["logits"], metric=metric,
            direction=direction, positions=positions, mlps=mlps, group=group, memory=budget, out=out, about=about,
            tick=counter(shown, "path"),
        )  # fmt: skip
    show(found, top=top, as_json=as_json, out=out)
