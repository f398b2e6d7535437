"""`headatlas circuit test MODEL CIRCUIT`."""

# ruff: noqa: PT028  (`test` is a command, no test)
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json, say_start_end
from headatlas.cli.circuit import _options as circuits
from headatlas.errors import BadInput

if TYPE_CHECKING:
    from headatlas.circuits.evaluate import CircuitTest

library = ("headatlas.test_circuit", "headatlas.circuits.workflow.circuit_prompts")


def before(
    circuit: str,
    task: str | None,
    prompts: str | None,
    text: list[str] | None,
    chat: str | None,
    counterfactual: list[str] | None,
) -> None:
    """Raise BadInput unless one source of prompts is named, in which the circuit's positions stand, or the circuit says what it does."""
    nodes = circuit.replace(",", " ").split()
    heads = not Path(circuit).is_file() and any(node[:1].isdigit() for node in nodes)
    if task or prompts or text or chat:
        positions = [node.partition("@")[2] for node in nodes] if heads else []
        sources.Measured(task, prompts, text, chat, counterfactual).demand(" ".join(positions))
    elif heads:
        raise BadInput(
            f"Heads alone do not say what '{circuit}' is tested on.", "Give --task NAME, --prompts FILE or --text."
        )


def test(
    model: option.Model,
    circuit: Annotated[
        str,
        typer.Argument(help="A circuit file, heads such as '9.6@end 5.5', or an id of the catalogue."),
        Check(check.circuit),
    ],
    task: option.Task = None,
    prompts: option.Prompts = None,
    text: option.Text = None,
    chat: option.Chat = None,
    counterfactual: option.Counterfactual = None,
    metric: option.Metric = None,
    criteria: Annotated[
        str, typer.Option(help="What is measured beside faithfulness: completeness, minimality, both, or none.")
    ] = "completeness minimality",
    draws: Annotated[
        int,
        typer.Option(help="Random sets of heads for completeness and minimality."),
        check.at_least(1, "random sets"),
    ] = 10,
    ablation: circuits.Ablation = "mean",
    mean: circuits.Mean = None,
    reference: circuits.Reference = 200,
    ratio: circuits.Ratio = "ratio-of-means",
    known_as: option.KnownAs = None,
    n: option.N = 32,
    seed: Annotated[int, typer.Option(help="Seed of the prompts; that of `find` is 0.")] = 3,
    memory: option.Memory = "4GB",
    out: circuits.Out = None,
    force: option.Force = False,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Measure whether a circuit is enough (faithfulness), all there is (completeness) and all needed (minimality).

    Without --task and --prompts the task is the one that the circuit itself names.

    Example: headatlas circuit test smollm2-135m '23.3 20.0 18.6' --task ioi --criteria minimality

    For Yao et al. 2024: headatlas circuit test smollm2-135m capitals.json --task capitals --reference 100 --metric hit@10 --criteria none
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    if task or prompts or text or chat:
        given = sources.Measured(task, prompts, text, chat, counterfactual).given(n, seed, metric, force=force)
    else:
        given = ha.circuit_prompts(circuit, n=n, seed=seed, force=force)
    options = ha.RunOptions(memory, out)
    knockout = ha.KnockoutOptions(ablation, mean, reference, ratio)
    with Shown() as shown:
        found = ha.test_circuit(
            ha.load(model, dtype=dtype, device=device), circuit, given, criteria=criteria, draws=draws, known_as=known_as,
            knockout=knockout, options=options, progress=shown,
        )  # fmt: skip
    if as_json:
        print_json(found.data())
        return
    _show(found, out)


def _show(found: CircuitTest, out: str | None) -> None:
    from rich.table import Table

    from headatlas.render.console import console

    screen = console()
    say = lambda line: screen.print(line, highlight=False, soft_wrap=True)  # noqa: E731
    faithful, protocol = found.faithfulness, found.protocol
    say(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in protocol.items() if value is not None))
    say(
        f"whole model {circuits.interval(faithful.whole)}, circuit {circuits.interval(faithful.circuit)}, no heads {circuits.interval(faithful.empty)}"
    )
    say(f"faithfulness: gap {faithful.gap:.3f}, circuit / whole {circuits.interval(faithful.share, percent=True)}")
    say(f"  recovered (circuit - none) / (whole - none) {circuits.interval(faithful.recovered, percent=True)}")
    if found.completeness is not None:
        table = Table("completeness: without K", "circuit", "whole", "gap", "of whole", box=None, pad_edge=False)
        for gap in found.completeness:
            table.add_row(
                f"{gap.kind} ({len(gap.removed)})", f"{gap.circuit:+.3f}", f"{gap.whole:+.3f}", circuits.interval(gap.gap), f"{gap.share:.1%}"
            )  # fmt: skip
        screen.print(table)
    if found.minimality is not None:
        table = Table("minimality", "without K", "effect of losing it", "of whole", box=None, pad_edge=False)
        for need in sorted(found.minimality, key=lambda need: need.share):
            table.add_row(
                str(need.node),
                f"{need.kind} ({len(need.removed)})",
                circuits.interval(need.effect),
                f"{need.share:.1%}",
            )
        screen.print(table)
    say_start_end(found.facts)
    if out is not None:
        say(f"Written to {out}")
