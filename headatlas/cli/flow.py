"""`headatlas flow MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _options as option


def flow(
    model: option.Model,
    prompt: Annotated[str | None, typer.Option(help="A text; its route is shown.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Built-in task; the share of each head over its prompts is shown.")
    ] = None,
    position: Annotated[int, typer.Option(help="Token whose prediction is followed back; -1 is the last.")] = -1,
    threshold: Annotated[float, typer.Option(help="Importance above which an edge is followed.")] = 0.04,
    out: Annotated[str | None, typer.Option(help="File for the route: .svg, .html, .graphml or .json.")] = None,
    n: option.N = 16,
    seed: Annotated[int, typer.Option(help="Seed of the task's prompts.")] = 0,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Follow a prediction back to the tokens and heads it was built from (information flow routes).

    Example: headatlas flow smollm2-135m --prompt "The capital of France is" --out route.html
    """
    import json
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    import headatlas as ha
    from headatlas.cli._effects import counter
    from headatlas.cli._progress import Shown
    from headatlas.errors import BadInput
    from headatlas.methods.information_flow import export
    from headatlas.methods.information_flow.routes import extract, importances, shares, shares_data
    from headatlas.prompts_file import one_prompt
    from headatlas.task import find_task

    if (prompt is None) == (task is None):
        raise BadInput("Say what is read.", "Give either --prompt TEXT or --task NAME.")
    if task is not None and out is not None:
        raise BadInput("--out keeps the route of one text.", "Give --prompt TEXT, or leave --out out.")
    console = Console()
    say = lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)  # noqa: E731
    loaded = ha.load(model, dtype=dtype, device=device)
    if task is not None:
        with Shown() as shown:
            batch = find_task(task)(loaded.tokenizer, n, seed)
            data = shares_data(shares(loaded, batch, threshold=threshold, tick=counter(shown, "flow")), top)
        if as_json:
            print(json.dumps(data))
            return
        table = Table("head", "share", "95% interval", "on the route", box=None, pad_edge=False)
        for row in data["heads"]:
            table.add_row(
                row["head"], f"{row['share']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}", f"{row['used']:.0%}"
            )
        console.print(table)
        say(f"share of what arrives at a token that each head brings, over {len(batch)} prompts")
        return
    tokens = one_prompt(str(prompt), loaded.tokenizer).tokens[0]
    route = extract(tokens, importances(loaded, tokens), position=position, threshold=threshold)
    if out is not None:
        export.write(loaded, route, Path(out))
    data = export.data_of(loaded, route)
    if as_json:
        print(json.dumps(data, ensure_ascii=False))
        return
    table = Table("head", "importance on the route", box=None, pad_edge=False)
    for head, weight in list(data["heads"].items())[:top]:
        table.add_row(head, f"{weight:.3f}")
    console.print(table)
    kinds = {kind: sum(edge["kind"] == kind for edge in data["edges"]) for kind in ("attention", "mlp", "residual")}
    reached = sorted({edge["source"][1] for edge in data["edges"] if edge["source"][0] == 0})
    say(f"{len(data['nodes'])} nodes, " + ", ".join(f"{count} {kind} edges" for kind, count in kinds.items()))
    say("begins at: " + " ".join(repr(data["tokens"][i]["text"]) for i in reached))
    if out is not None:
        say(f"Drawn in {out}" if not out.endswith(".json") else f"Kept in {out}")
