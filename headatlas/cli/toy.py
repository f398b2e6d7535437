"""`headatlas toy KIND`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.render.escape import say

runs = {"simplified-model-training": "repeated --out toys/repeated"}  # methods of the catalogue that this carries out


def toy(
    kind: Annotated[
        str,
        typer.Argument(help="Which toy: repeated, markov, translation ... (docs/toys.md).", show_default=False),
        Check(check.toy),
    ],
    out: Annotated[str, option.NEW_FOLDER],
    seed: option.SeedOfTraining = 0,
    steps: Annotated[
        int | None,
        typer.Option(help="Steps of each training; default: the recipe's own, which its claims are made for."),
        check.at_least(1, "steps"),
    ] = None,
) -> None:
    """Train a paper's small transformers and judge what the paper says of them; write models, checkpoints and numbers.

    Takes one to five minutes on two cores; an interrupted training goes on from where it was. The folder gets the model,
    its checkpoints, curve.json and curve.svg (drawn by matplotlib: pip install 'headatlas[plots]').

    translation: an encoder-decoder that copies names, agrees and reorders, then pruned and made sparse; what must come out is
    printed as passed or failed, and any failure exits with 1.

    Example: headatlas toy markov --out toys/markov
    """
    from pathlib import Path

    import headatlas as ha
    from headatlas.cli._progress import Shown
    from headatlas.render import plots

    plots.require()
    if kind == "translation":
        _translation(out, seed, steps)
        return
    with Shown() as shown:
        trained = ha.toy(kind, seed=seed, steps=steps, out=out, progress=shown)
    for outcome in trained.outcomes:
        say(str(outcome))
    for name, effect in trained.effects.items():
        say(f"without {name}: {trained.study.ablated} {effect:+.3f}")
    say(f"Written: {Path(out).resolve()}")


def _translation(out: str, seed: int, steps: int | None) -> None:
    import sys

    import headatlas as ha

    made = ha.translation_toy(seed=seed, steps=steps, say=lambda text: say(text, file=sys.stderr))
    folder = made.save(out)
    for one in made.removed:
        say(
            f"without {one.head}: {one.rates.verbs:.3f} of verbs, {one.rates.others:.3f} of other words, {one.rates.names:.3f} of names right"
        )
    for point in made.curve:
        say(
            f"penalty {point.penalty}: {point.open} of 8 encoder heads open, {point.rates.verbs:.3f} of verbs and "
            f"{point.rates.others:.3f} of other words right"
        )
    for outcome in made.checks:
        say(str(outcome))
    say(f"Written: {folder.resolve()}")
    if not made.passed:
        raise typer.Exit(1)
