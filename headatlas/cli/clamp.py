"""`headatlas clamp TOY HEADS`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.choices import INTERVENTION, PATTERN
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json


def clamp(
    toy: Annotated[str, typer.Argument(help="Which toy is trained (docs/toys.md)."), Check(check.toy)],
    heads: Annotated[str, typer.Argument(help="The heads that are changed, such as '0.0 1.1'."), Check(check.heads)],
    how: Annotated[
        str, typer.Option(help="clamp, ablate, freeze or regularise."), Check(INTERVENTION.demand)
    ] = "clamp",
    pattern: Annotated[
        str,
        typer.Option(help="What attention is clamped to: previous-token, induction, current or first."),
        Check(PATTERN.demand),
    ] = "previous-token",
    strength: Annotated[float, typer.Option(help="Share of the clamped attention, or weight of the penalty.")] = 1.0,
    start: Annotated[int, typer.Option(help="First step of it."), check.at_least(0, "steps")] = 0,
    stop: Annotated[
        int | None, typer.Option(help="The step before which it ends; default: never."), check.at_least(1, "steps")
    ] = None,
    seed: option.SeedOfTraining = 0,
    steps: Annotated[
        int | None, typer.Option(help="Training steps; default: the toy's own."), check.at_least(1, "steps")
    ] = None,
    out: Annotated[str | None, option.NEW_FOLDER] = None,
    as_json: option.Json = False,
) -> None:
    """Train a toy twice from one seed, as it is and with heads changed for some steps: what do the others owe to them?

    Example: headatlas clamp repeated 0.0 --how clamp --pattern previous-token --stop 400 --out toys/clamped
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.heads import parse_heads
    from headatlas.render import plots
    from headatlas.render.escape import say

    if out is not None:
        plots.require()
    chosen = ha.Intervention(tuple(parse_heads(heads)), how, start, stop, pattern, strength)
    with Shown() as shown:
        found = ha.clamp(toy, chosen, seed=seed, steps=steps, out=out, progress=shown)
    if as_json:
        print_json(found.data)
        return
    say(f"{chosen}; the control beside it.")
    for row in found.rows:
        last, half = row["last"], row["halfway"]
        steps_told = " and ".join("never" if half[key] is None else f"step {half[key]:,}" for key in found.runs)
        say(
            f"{row['number']}: {last['control']:.3g} in the control, {last['changed']:.3g} changed; halfway {steps_told}"
        )
    if out is not None:
        say(f"Written: {out}")
