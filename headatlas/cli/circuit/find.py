"""`headatlas circuit find MODEL`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headatlas import choices
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json, say_start_end
from headatlas.cli.circuit import _options as circuits

if TYPE_CHECKING:
    from headatlas.circuits.finding import FoundCircuit

library = "headatlas.find_circuit"

ENOUGH = 0.7  # of what all edges do: what Yao et al. 2024 ask of a knowledge circuit

before = sources.before_measuring


def find(
    model: option.Model,
    task: option.Task = None,
    prompts: option.Prompts = None,
    text: option.Text = None,
    chat: option.Chat = None,
    counterfactual: option.Counterfactual = None,
    metric: option.Metric = None,
    positions: Annotated[
        str | None,
        typer.Option(help="Heads may be part of it at these positions only, such as 'end s2'; default: everywhere."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="attribution (ranked by a gradient, then measured) or greedy (all measured at each step)."),
        Check(choices.CIRCUIT_SEARCH.demand),
    ] = "attribution",
    target: Annotated[
        float,
        typer.Option(help="Share of what all heads do that the circuit has to recover."),
        check.number("target", 0.001, 1),
    ] = 0.9,
    largest: Annotated[int | None, typer.Option(help="Heads at most."), check.at_least(1, "heads")] = None,
    edges: Annotated[bool, typer.Option("--edges", help="Measure what passes between its heads, too.")] = False,
    seeds: Annotated[
        int,
        typer.Option(help="Searches on other prompts of the task, to say how stable the circuit is; 1 for none."),
        check.at_least(1, "searches"),
    ] = 2,
    rival: Annotated[
        str,
        typer.Option(help="Compare with the heads of EAP-IG's edges pruned to the same size: eap-ig, or none."),
        Check(choices.CIRCUIT_RIVAL.demand),
    ] = "none",
    ablation: circuits.Ablation = "mean",
    mean: circuits.Mean = None,
    reference: circuits.Reference = 200,
    ratio: circuits.Ratio = "ratio-of-means",
    n: option.N = 32,
    seed: option.Seed = 0,
    memory: option.Memory = "4GB",
    out: circuits.Out = None,
    force: option.Force = False,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Find a small set of heads that does the task while all others are knocked out.

    Half of the prompts finds, the other half judges: the interval's low end must reach the target there. A circuit of a
    built-in task is then measured on new prompts, and that is the number to quote.

    Example: headatlas circuit find smollm2-135m --task ioi --target 0.9 --edges --out ioi.json

    For Yao et al. 2024: headatlas circuit find smollm2-135m --task capitals --reference 100 --edges --rival eap-ig --out capitals.json # edges are ranked by EAP-IG and kept by rank, where the paper cuts them one by one; the rest carries the counterfactual, where the paper writes zero
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    given = sources.Measured(task, prompts, text, chat, counterfactual).given(n, seed, metric, force=force)
    options = ha.SearchOptions(memory, out, seeds, rival)
    knockout = ha.KnockoutOptions(ablation, mean, reference, ratio)
    with Shown() as shown:
        found = ha.find_circuit(
            ha.load(model, dtype=dtype, device=device), given, positions=positions, method=method, target=target,
            largest=largest, edges=edges, knockout=knockout, options=options, progress=shown,
        )  # fmt: skip
    if as_json:
        print_json(found.circuit.data())
        return
    _show(found, out)


def _show(found: FoundCircuit, out: str | None) -> None:
    from headatlas.render.console import console

    screen = console()
    say = lambda line: screen.print(line, highlight=False, soft_wrap=True)  # noqa: E731
    circuit, again = found.circuit, found.held_out
    facts = circuit.facts
    say(f"{len(circuit.nodes)} heads: {' '.join(map(str, circuit.nodes))}")
    short = "" if facts["reached"] else "; the target was not reached"
    say(
        f"on the half that found it they recover {facts['recovered']:.1%}, on the half that judged {_share(facts['judged'])}{short}"
    )
    if not facts["monotone"]:
        say("what is recovered rises and falls as the circuit grows: heads for and against the answer come in by turns")
    if again is not None:
        say(
            f"on new prompts they recover {circuits.interval(again.recovered, percent=True)}; metric {circuits.interval(again.circuit)}, "
            f"whole model {circuits.interval(again.whole)}, no heads {circuits.interval(again.empty)}"
        )
    else:
        say("there are no other prompts to measure it on: what it recovers elsewhere is not known")
    if "stability" in facts:
        stable = facts["stability"]
        say(
            f"stability: Jaccard {stable['jaccard']:.2f} of the heads of {stable['searches']} searches on {stable['drawn']}"
        )
    mib = facts["mib"]
    say(f"ranking of all heads (MLPs in place): CPR {mib['cpr']:.3f}, CMD {mib['cmd']:.3f}")
    if "rival" in facts:
        other = facts["rival"]
        say(
            f"{len(other['heads'])} heads of {other['edges']} EAP-IG edges recover {_share(other['recovered'])}, these heads "
            f"everywhere {_share(other['recovered_by_the_circuit_everywhere'])}; Jaccard {other['jaccard']:.2f}"
        )
        _show_edges(other["edges_alone"], say)
    how = " ".join(str(part) for part in (facts["ablation"], facts["mean"]) if part)
    say(f"knocked out: {how}" + (f", over {facts['mean_over']}" if facts["mean_over"] else "") + "; MLPs left in place")
    for edge in circuit.edges:
        say(f"{edge.sender} -> {edge.receiver.name}  effect {edge.effect:+.3f}  q {edge.q:.2g}")
    say_start_end(facts)
    if out is not None:
        say(f"Written to {out}")


def _show_edges(found: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """The smallest circuit of edges that was tried and recovers 70%, with its hits, and the areas over all sizes."""
    enough = next((i for i, value in enumerate(found["recovered"]) if value >= ENOUGH), len(found["shares"]) - 1)
    hits = found["hits"]
    told = (
        f"; the answer is among the ten likeliest tokens in {hits[enough]:.1%} of prompts, in {hits[-2]:.1%} with all edges, in "
        f"{hits[-1]:.1%} with none"
        if hits
        else ""
    )
    say(
        f"the first {found['edges'][enough]} EAP-IG edges alone ({found['shares'][enough]:.1%} of all) recover "
        f"{found['recovered'][enough]:.1%}{told}"
    )
    say(f"ranking of all edges (the others from the counterfactual): CPR {found['cpr']:.3f}, CMD {found['cmd']:.3f}")


def _share(found: Mapping[str, float]) -> str:
    return f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
