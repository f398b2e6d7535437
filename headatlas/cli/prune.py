"""`headatlas prune MODEL`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headatlas import choices
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json, say_start_end
from headatlas.errors import BadInput
from headatlas.render.numbers import count

if TYPE_CHECKING:
    from headatlas.apply.pruning.result import PrunedPoint, Pruning
    from headatlas.apply.pruning.write import PrunedCheckpoint

library = (
    "headatlas.prune",
    "headatlas.apply.pruning.write.write_pruned",
    "headatlas.apply.pruning.figure.write_curves",
)


def before(
    task: str | None, prompts: str | None, text: list[str] | None, chat: str | None, keep: float | None, out: str | None,
    spread: str, guard: int,
) -> None:  # fmt: skip
    """Raise BadInput unless one source of prompts is named, and a share to keep where a checkpoint is written."""
    sources.Measured(task, prompts, text, chat, None).demand(None)
    if out is not None and keep is None:
        raise BadInput("A checkpoint keeps a share of the heads.", "Add --keep SHARE, such as --keep 0.6.")
    if guard and spread != "model":
        raise BadInput("--guard is for heads that go anywhere (--spread model).", "Leave one of them out.")


def prune(
    model: option.Model,
    task: option.Task = None,
    prompts: option.Prompts = None,
    text: option.Text = None,
    chat: option.Chat = None,
    metric: option.Metric = None,
    order: Annotated[
        list[str] | None,
        typer.Option(
            "--order",
            help="michel (importance; the default), l0 (gates), mean-ablation, zero-ablation or random; may be given several times.",
        ),
        Check(choices.PRUNING.demand),
    ] = None,
    removal: Annotated[
        str, typer.Option(help="What removed heads give: zero, or their mean."), Check(choices.REMOVED.demand)
    ] = "zero",
    spread: Annotated[
        str,
        typer.Option(
            help="model (anywhere), layer (equally many of each), group (whole KV groups of each layer) or queries (of each KV group)."
        ),
        Check(choices.SPREAD.demand),
    ] = "model",
    keep: Annotated[
        float | None, typer.Option(help="Measure at this share of heads alone."), check.share("heads to keep")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", help="With --keep: folder for the smaller model, by the first order. Must not exist."
        ),
        Check(check.new_folder),
    ] = None,
    svg: Annotated[
        str | None, typer.Option("--svg", help="File to draw the curves in (.svg)."), Check(check.curve_file)
    ] = None,
    points: Annotated[
        int, typer.Option(help="Steps of the curve between all heads and none."), check.at_least(1, "points")
    ] = 10,
    draws: Annotated[int, typer.Option(help="Random orders beside."), check.at_least(1, "random orders")] = 3,
    guard: Annotated[
        int, typer.Option(help="Heads of each layer that stay, the best of the order."), check.at_least(0, "heads")
    ] = 0,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Ask for importance (michel) again at each step.")
    ] = False,
    penalty: Annotated[float, typer.Option(help="Of gates (l0): what an open head costs, in units of the metric.")] = 0.01,
    steps: Annotated[int, typer.Option(help="Steps of training gates."), check.at_least(1, "steps")] = 100,
    rate: Annotated[float, typer.Option(help="Learning rate of gates.")] = 0.1,
    n: Annotated[
        int, typer.Option("--n", help="Prompts of a built-in task for each half: to order heads, and to measure."),
        check.at_least(2, "prompts"),
    ] = 16,
    seed: Annotated[int, typer.Option(help="Seed of prompts, random orders and gates.")] = 0,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:  # fmt: skip
    """Take heads away in order of importance: what the model loses beside random orders, and a smaller checkpoint.

    Heads are ordered on some prompts and removed on others. With --keep and --out the model without the heads is written as a
    folder that plain transformers loads; --spread then takes heads evenly, as one number of heads stands for all layers.

    Example: headatlas prune smollm2-135m --task prose --n 4 --order michel --order mean-ablation --svg curves.svg

    For Voita et al. 2019: headatlas prune smollm2-135m --task prose --n 4 --order l0 # the weights stay frozen, where the paper trains them along with the gates

    A smaller model: headatlas prune smollm2-135m --task prose --n 4 --spread queries --keep 0.67 --out smaller
    """
    import headatlas as ha
    from headatlas.apply.pruning.figure import write_curves
    from headatlas.apply.pruning.smaller import demand_smaller
    from headatlas.cli._progress import Shown

    options = ha.PruneOptions(removal, spread, points, draws, guard, recompute, penalty, steps, rate, seed)
    given = sources.Measured(task, prompts, text, chat, None).given(n, seed, metric, force=False)
    opened = ha.load(model, dtype=dtype, device=device)
    if out is not None:  # what a family cannot hold is told before the work
        demand_smaller(opened, bias=removal == "mean")
    with Shown() as shown:
        found = ha.prune(opened, given, order=order or ["michel"], keep=keep, options=options, progress=shown)
    if svg is not None:
        write_curves(found, svg)
    written = None
    if out is not None and keep is not None:
        written = ha.write_pruned(opened, found.removed(keep), out, means=found.means)
    if as_json:
        print_json({**found.data, "checkpoint": None if written is None else written.data})
        return
    _show(found, written, svg)


def _show(found: Pruning, written: PrunedCheckpoint | None, svg: str | None) -> None:
    from rich.table import Table

    from headatlas.render.console import console
    from headatlas.render.numbers import number, signed

    screen, facts = console(), found.facts

    def say(line: str) -> None:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)

    unit = f" {facts['unit']}" if facts["unit"] else ""
    instead = "their mean" if found.means is not None else "zero"
    say(
        f"{facts['model']} on {facts['prompts']}: {facts['metric']} {number(found.whole)}{unit} ({number(found.whole_low)} to "
        f"{number(found.whole_high)}) with all {len(found.heads)} heads; {facts['n_held_out']} held-out texts, heads ordered on {facts['n_ordering']} others"
    )
    say(f"Removed heads give {instead}. By how much it is worse, with the 95% interval:")
    table = Table("heads kept", *(_headed(name, found) for name in found.curves), box=None, pad_edge=False)

    def cell(point: PrunedPoint) -> str:
        lot = point.least == point.least  # not NaN: of random orders
        low, high = (point.least, point.greatest) if lot else (point.rise_low, point.rise_high)
        mark = " *" if point.beyond_high < 0 else ""
        return f"{signed(point.rise)} ({signed(low)} to {signed(high)}){mark}"

    for row in zip(*found.curves.values(), strict=True):
        table.add_row(f"{row[0].share:.0%} ({row[0].kept})", *map(cell, row))
    screen.print(table)
    if any(point.beyond_high < 0 for points in found.curves.values() for point in points):
        say("*: better than random orders of the same size, by the paired 95% interval.")
    if found.gated is not None:
        gates = found.orders["l0"].facts
        say(
            f"Gates: {found.gated.kept} of {len(found.heads)} open ({gates['exactly_open']} fully, {gates['exactly_closed']} fully closed); "
            f"with these alone worse by {cell(found.gated)}"
        )
    if svg is not None:
        say(f"Drawn in {svg}")
    if written is not None:
        before, after = written.parameters
        say(
            f"Written to {written.folder}: {after:,} of {before:,} parameters ({after / before:.0%}), {count(written.heads[1], 'head')} a layer in "
            f"{count(written.groups[1], 'KV group')} (were {written.heads[0]} in {written.groups[0]}); {count(written.fillers, 'head')} of zeros, "
            f"{count(written.repeated, 'KV head')} twice. Loaded again, its logits are those of the masked model to {written.agreement}."
        )
    say_start_end(facts)


def _headed(name: str, found: Pruning) -> str:
    if name in found.orders:
        return name
    return f"{count(found.facts['draws'], 'random order')} (least to greatest)"
