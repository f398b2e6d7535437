"""`headatlas circuit find | test | compare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headatlas.cli import _options as option

if TYPE_CHECKING:
    import headatlas as ha
    from headatlas.circuits.circuit import Circuit, Edge
    from headatlas.circuits.evaluate import CircuitTest, Faithfulness
    from headatlas.circuits.knockout import Protocol
    from headatlas.cli._progress import Shown

app = typer.Typer(
    help="Circuits: heads that do a task together. Find one, test it, compare two.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Ablation = Annotated[str, typer.Option(help="How heads outside are knocked out: mean, resample or zero.")]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Mean overall, per position, or per template and position; default: template where there are any."
    ),
]
Reference = Annotated[int, typer.Option(help="Means are taken over so many other prompts of the task.")]
Ratio = Annotated[str, typer.Option(help="ratio-of-means or mean-of-ratios.")]


@app.command()
def find(
    model: option.Model,
    task: option.Task = None,
    prompts: option.Prompts = None,
    positions: Annotated[
        str | None,
        typer.Option(help="Heads may be part of it at these positions only, such as 'end s2'; default: everywhere."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="attribution (ranked by a gradient, then measured) or greedy (all measured at each step)."),
    ] = "attribution",
    target: Annotated[float, typer.Option(help="Share of what all heads do that the circuit has to recover.")] = 0.9,
    largest: Annotated[int | None, typer.Option(help="Heads at most.")] = None,
    edges: Annotated[bool, typer.Option("--edges", help="Measure what passes between its heads, too.")] = False,
    ablation: Ablation = "mean",
    mean: Mean = None,
    reference: Reference = 200,
    ratio: Ratio = "ratio-of-means",
    n: option.N = 32,
    seed: option.Seed = 0,
    memory: option.Memory = "4GB",
    out: Annotated[
        str | None, typer.Option(help="File to write the circuit to; interrupted runs go on from there.")
    ] = None,
    force: option.Force = False,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Find a small set of heads that does the task while all others are knocked out.

    A circuit of a built-in task is then measured on new prompts, since a search fits the prompts it was made on.

    Example: headatlas circuit find smollm2-135m --task ioi --target 0.9 --edges --out ioi.json
    """
    import headatlas as ha
    from headatlas.circuits.checkpoint import unfinished
    from headatlas.circuits.circuit import Circuit
    from headatlas.circuits.discover import discover
    from headatlas.circuits.edges import measure_edges
    from headatlas.circuits.evaluate import faithfulness
    from headatlas.circuits.knockout import Knockout
    from headatlas.cli._effects import counter, pass_gate, prompts_of
    from headatlas.cli._progress import Shown
    from headatlas.methods.sweeps.checkpoint import facts_of
    from headatlas.methods.sweeps.memory_budget import parse_size
    from headatlas.store import clean, partial_of
    from headatlas.task import find_task

    budget = parse_size(memory)
    with Shown() as shown:
        loaded = ha.load(model, dtype=dtype, device=device)
        batch, metric, about, gate = prompts_of(loaded, task, prompts, n, seed)
        pass_gate(shown, loaded, gate, task or str(prompts), force)
        protocol = _protocol(loaded, batch, task, ablation, mean, reference, ratio, seed)
        knockout = Knockout(loaded, batch, metric, protocol, memory=budget)
        more = {**about, "method": method, "target": target, "largest": largest, "circuit_positions": positions}
        identity = facts_of(loaded, knockout.sweep, {**more, "reference": reference, "edges": edges})
        with unfinished(out, identity) as knockout.ledger:
            places = tuple((positions or "").replace(",", " ").split())
            found = discover(knockout, positions=places, method=method, target=target, largest=largest, tick=shown.say)
            links: tuple[Edge, ...] = ()
            if edges:
                place = partial_of(Path(out)) / "edges" if out is not None else None
                links, _ = measure_edges(
                    loaded, batch, found.nodes, metric, memory=budget, out=place, tick=counter(shown, "edges")
                )
            again = None
            if task is not None:  # the reference was drawn with seed + 1
                fresh = Knockout(
                    loaded, find_task(task)(loaded.tokenizer, n, seed + 2), metric, protocol, memory=budget
                )
                again = faithfulness(frozenset(found.nodes), fresh)
            facts = {**identity, "reached": found.reached, "recovered": found.recovered, "tried": len(found.steps)}
            if again is not None:
                facts["held_out"] = {"seed": seed + 2, "recovered": vars(again.recovered), "share": vars(again.share)}
            circuit = Circuit(
                f"{loaded.name} {task or prompts}",
                str(task or prompts),
                found.nodes,
                links,
                model=loaded.name,
                facts=facts,
            )
            if out is not None:
                circuit.save(out)
    if as_json:
        print(json.dumps(clean(circuit.data()), ensure_ascii=False))
        return
    _show_found(circuit, again, out)


@app.command("test")
def measure(
    model: option.Model,
    circuit: Annotated[
        str, typer.Argument(help="A circuit file, heads such as '9.6@end 5.5', or an id of the catalogue.")
    ],
    task: option.Task = None,
    prompts: option.Prompts = None,
    criteria: Annotated[
        str, typer.Option(help="What is measured beside faithfulness: completeness, minimality, both, or none.")
    ] = "completeness minimality",
    draws: Annotated[int, typer.Option(help="Random sets of heads for completeness and minimality.")] = 10,
    ablation: Ablation = "mean",
    mean: Mean = None,
    reference: Reference = 200,
    ratio: Ratio = "ratio-of-means",
    n: option.N = 32,
    seed: Annotated[int, typer.Option(help="Seed of the prompts; that of `find` is 0.")] = 3,
    memory: option.Memory = "4GB",
    out: Annotated[
        str | None, typer.Option(help="File to write the result to; interrupted runs go on from there.")
    ] = None,
    force: option.Force = False,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Measure whether a circuit is enough (faithfulness), all there is (completeness) and all needed (minimality).

    Example: headatlas circuit test smollm2-135m '23.3 20.0 18.6' --task ioi --criteria minimality
    """
    import headatlas as ha
    from headatlas.circuits.checkpoint import unfinished
    from headatlas.circuits.evaluate import evaluate
    from headatlas.circuits.knockout import Knockout
    from headatlas.cli._effects import pass_gate, prompts_of
    from headatlas.cli._progress import Shown
    from headatlas.methods.sweeps.checkpoint import facts_of
    from headatlas.methods.sweeps.memory_budget import parse_size
    from headatlas.store import clean, write_json

    budget = parse_size(memory)
    with Shown() as shown:
        loaded = ha.load(model, dtype=dtype, device=device)
        given = _circuit(circuit, loaded, task or str(prompts))
        batch, metric, about, gate = prompts_of(loaded, task, prompts, n, seed)
        pass_gate(shown, loaded, gate, task or str(prompts), force)
        protocol = _protocol(loaded, batch, task, ablation, mean, reference, ratio, seed)
        knockout = Knockout(loaded, batch, metric, protocol, memory=budget, tick=_every(25, shown))
        identity = facts_of(loaded, knockout.sweep, {**about, "reference": reference})
        with unfinished(out, identity) as knockout.ledger:
            wanted = [] if criteria.strip() in ("", "none") else criteria.replace(",", " ").split()
            found = evaluate(given, knockout, criteria=wanted, draws=draws, seed=seed)
            data = {**found.data(), "run": identity}
            if out is not None:
                write_json(Path(out), data)
    if as_json:
        print(json.dumps(clean(data), ensure_ascii=False))
        return
    _show_test(found, out)


@app.command()
def compare(
    found: Annotated[str, typer.Argument(help="A circuit file, or an id of the catalogue.")],
    reference: Annotated[str, typer.Argument(help="What it is compared with: a file or an id.")],
    as_json: option.Json = False,
) -> None:
    """Say how much two circuits of one model have in common: heads, heads at positions, edges.

    Example: headatlas circuit compare found.json ioi
    """
    from rich.console import Console
    from rich.table import Table

    from headatlas.circuits.compare import compare as overlaps

    data = overlaps(_stored(found), _stored(reference))
    if as_json:
        print(json.dumps(data, ensure_ascii=False))
        return
    console = Console()
    table = Table("", "first", "second", "common", "Jaccard", "precision", "recall", box=None, pad_edge=False)
    for what in ("heads", "nodes", "edges"):
        row = data[what]
        shares = ["" if row[name] is None else f"{row[name]:.2f}" for name in ("jaccard", "precision", "recall")]
        table.add_row(what, *(str(row[name]) for name in ("first", "second", "common")), *shares)
    console.print(f"first: {data['found']}; second: {data['reference']}", highlight=False, soft_wrap=True)
    console.print(table)
    for name, text in (
        ("common", "in both"),
        ("only_found", "only in the first"),
        ("only_reference", "only in the second"),
    ):
        console.print(f"{text}: {' '.join(data[name]) or 'none'}", highlight=False, soft_wrap=True)


def _stored(text: str) -> Circuit:
    from headatlas.circuits.circuit import Circuit
    from headatlas.circuits.published import from_catalogue

    return Circuit.load(text) if text.endswith(".json") or Path(text).exists() else from_catalogue(text)


def _circuit(text: str, model: ha.Model, task: str) -> Circuit:
    """A circuit from a file, from heads as they are written, or from the catalogue; of this model."""
    from headatlas.circuits.circuit import Circuit, parse_nodes
    from headatlas.circuits.published import published
    from headatlas.errors import BadInput

    if text.endswith(".json") or Path(text).exists():
        found = Circuit.load(text)
        if found.model not in (None, model.name):
            raise BadInput(f"{text} is a circuit of {found.model}, not of {model.name}.", "Load that model.")
        return found
    if text[:1].isdigit() or text[:1] == "L":
        return Circuit(text, task, parse_nodes(text), model=model.name)
    return published(text, model)


def _protocol(
    model: ha.Model,
    batch: ha.Batch,
    task: str | None,
    ablation: str,
    mean: str | None,
    reference: int,
    ratio: str,
    seed: int,
) -> Protocol:
    from headatlas.circuits.knockout import Protocol
    from headatlas.methods.sweeps.ablation import reference_of
    from headatlas.task import find_task

    other = None
    if task is not None and ablation == "mean":
        other = reference_of(find_task(task), model.tokenizer, reference, seed)
    return Protocol(ablation, mean or ("template" if "template" in batch.labels else "overall"), other, ratio)


def _every(step: int, shown: Shown) -> Callable[[int], None]:
    """Say now and then how many sets of heads were measured; how many there will be depends on what is found."""
    done = 0

    def tick(some: int) -> None:
        nonlocal done
        done += some
        if done // step > (done - some) // step:
            shown.say(f"{done} sets of heads measured")

    return tick


def _interval(value: Any, *, percent: bool = False) -> str:
    form = "{:.1%}" if percent else "{:+.3f}"
    return f"{form.format(value.value)} ({form.format(value.low)} to {form.format(value.high)})"


def _show_found(circuit: Circuit, again: Faithfulness | None, out: str | None) -> None:
    from rich.console import Console

    console = Console()
    say = lambda line: console.print(line, highlight=False, soft_wrap=True)  # noqa: E731
    facts = circuit.facts
    say(f"{len(circuit.nodes)} heads: {' '.join(map(str, circuit.nodes))}")
    short = "" if facts["reached"] else "; the target was not reached"
    say(f"on the prompts it was found on they recover {facts['recovered']:.1%}{short}")
    if again is not None:
        say(
            f"on new prompts they recover {_interval(again.recovered, percent=True)}; metric {_interval(again.circuit)}, "
            f"whole model {_interval(again.whole)}, no heads {_interval(again.empty)}"
        )
    else:
        say("there are no other prompts to measure it on: what it recovers elsewhere is not known")
    how = " ".join(str(part) for part in (facts["ablation"], facts["mean"]) if part)
    say(f"knocked out: {how}" + (f", over {facts['mean_over']}" if facts["mean_over"] else "") + "; MLPs left in place")
    for edge in circuit.edges:
        say(f"{edge.sender} -> {edge.receiver.name}  effect {edge.effect:+.3f}  q {edge.q:.2g}")
    if out is not None:
        say(f"Written to {out}")


def _show_test(found: CircuitTest, out: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    say = lambda line: console.print(line, highlight=False, soft_wrap=True)  # noqa: E731
    faithful, protocol = found.faithfulness, found.protocol
    say(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in protocol.items() if value is not None))
    say(
        f"whole model {_interval(faithful.whole)}, circuit {_interval(faithful.circuit)}, no heads {_interval(faithful.empty)}"
    )
    say(f"faithfulness: gap {faithful.gap:.3f}, circuit / whole {_interval(faithful.share, percent=True)}")
    say(f"  recovered (circuit - none) / (whole - none) {_interval(faithful.recovered, percent=True)}")
    if found.completeness is not None:
        table = Table("completeness: without K", "circuit", "whole", "gap", "of whole", box=None, pad_edge=False)
        for gap in found.completeness:
            table.add_row(
                f"{gap.kind} ({len(gap.removed)})", f"{gap.circuit:+.3f}", f"{gap.whole:+.3f}", _interval(gap.gap), f"{gap.share:.1%}"
            )  # fmt: skip
        console.print(table)
    if found.minimality is not None:
        table = Table("minimality", "without K", "effect of losing it", "of whole", box=None, pad_edge=False)
        for need in sorted(found.minimality, key=lambda need: need.share):
            table.add_row(
                str(need.node), f"{need.kind} ({len(need.removed)})", _interval(need.effect), f"{need.share:.1%}"
            )
        console.print(table)
    if out is not None:
        say(f"Written to {out}")
