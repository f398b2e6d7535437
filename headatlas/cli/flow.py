"""`headatlas flow MODEL`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json, say_start_end
from headatlas.render.console import console

runs = {
    "information-flow-graph": "MODEL --text 'The capital of France is'"
}  # methods of the catalogue that this carries out


def before(
    text: list[str] | None, chat: str | None, prompts: str | None, task: str | None, position: str | None
) -> None:
    """Raise BadInput unless one source of texts is named, in which the position stands."""
    sources.one_source(text=text, chat=chat, prompts=prompts, task=task)
    sources.demand_token(position, task, prompts)


def flow(
    model: option.Model,
    text: option.Text = None,
    chat: option.Chat = None,
    prompts: option.TextPrompts = None,
    task: Annotated[
        str | None,
        typer.Option(help="Built-in task; the share of each head over its prompts is shown."),
        Check(check.task),
    ] = None,
    position: Annotated[
        str,
        typer.Option(
            help="Token whose prediction is followed back, from 0, or a named position or span; -1 is the last."
        ),
    ] = "-1",
    threshold: Annotated[
        float, typer.Option(help="Importance above which an edge is followed."), check.number("threshold", 0, 1)
    ] = 0.04,
    out: Annotated[
        str | None, typer.Option(help="File for the route: .svg, .html, .graphml or .json."), Check(check.route_file)
    ] = None,
    n: option.N = 16,
    seed: Annotated[int, typer.Option(help="Seed of the task's prompts.")] = 0,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Follow a prediction back to the tokens and heads it was built from (information flow routes).

    Example: headatlas flow smollm2-135m --text "The capital of France is" --out route.html
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.methods.information_flow import export
    from headatlas.methods.information_flow.routes import Shares, shares_data

    loaded = ha.load(model, dtype=dtype, device=device)
    given = ha.Texts(text or (), chat, prompts) if task is None else None
    number = sources.number_of(position)
    place = position if number is None else number
    with Shown() as shown:
        found = ha.flow(
            loaded, given, task=task, position=place, threshold=threshold, out=out, n=n, seed=seed, progress=shown
        )
    if isinstance(found, Shares):
        _show_shares(shares_data(found, top), as_json)
    else:
        _show_route(export.data_of(loaded, found), top, as_json, out)


def _say(text: str) -> None:
    console().print(text, highlight=False, markup=False, soft_wrap=True)


def _show_shares(data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(data)
        return
    table = Table("head", "share", "95% interval", "on the route", box=None, pad_edge=False)
    for row in data["heads"]:
        table.add_row(
            row["head"], f"{row['share']:.4f}", f"{row['low']:.4f} to {row['high']:.4f}", f"{row['used']:.0%}"
        )
    console().print(table)
    _say(f"share of what arrives at a token that each head brings, over {data['n_examples']} prompts")
    say_start_end(data)


def _show_route(data: dict[str, Any], top: int, as_json: bool, out: str | None) -> None:
    if as_json:
        print_json(data)
        return
    table = Table("head", "importance on the route", box=None, pad_edge=False)
    for head, weight in list(data["heads"].items())[:top]:
        table.add_row(head, f"{weight:.3f}")
    console().print(table)
    kinds = {kind: sum(edge["kind"] == kind for edge in data["edges"]) for kind in ("attention", "mlp", "residual")}
    reached = sorted({edge["source"][1] for edge in data["edges"] if edge["source"][0] == 0})
    _say(f"{len(data['nodes'])} nodes, " + ", ".join(f"{count} {kind} edges" for kind, count in kinds.items()))
    _say("begins at: " + " ".join(repr(data["tokens"][i]["text"]) for i in reached))
    say_start_end(data)
    if out is not None:
        _say(f"Drawn in {out}" if not out.endswith(".json") else f"Kept in {out}")
