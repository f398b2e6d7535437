"""`headatlas toy KIND`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _options as option
from headatlas.render.escape import say

runs = {"simplified-model-training": "repeated --out toys/repeated"}  # methods of the catalogue that this carries out


def toy(
    kind: Annotated[
        str, typer.Argument(help="repeated (random words again and again), markov (unknown chains), or translation.")
    ],
    out: Annotated[str, option.NEW_FOLDER],
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Training steps; default: the recipe's own.")] = None,
) -> None:
    """Train a two-layer attention-only transformer until an induction head forms; write the model and its curve.

    Takes about a minute on two cores. The folder gets the model, curve.json and curve.svg (drawn
    by matplotlib: pip install 'headatlas[plots]'). translation: an encoder-decoder that copies names, agrees and reorders,
    then pruned and made sparse; what must come out is printed as passed or failed, and any failure exits with 1.

    Example: headatlas toy markov --out toys/markov
    """
    import sys
    from pathlib import Path

    import headatlas as ha
    from headatlas.errors import StoreError
    from headatlas.lab.toy.curve import Point
    from headatlas.render import plots

    plots.require()
    if Path(out).exists():
        raise StoreError(f"{out} exists already.", "Name a folder that does not exist yet.")

    if kind == "translation":
        _translation(out, seed, steps)
        return

    def tell(point: Point) -> None:
        say(
            f"step {point.step}: loss {point.loss:.3f}, in-context learning {point.icl:+.3f}, "
            f"prefix matching {point.best('prefix_matching'):.2f}, previous token {point.best('previous_token'):.2f}",
            file=sys.stderr,
        )

    trained = ha.toy(kind, seed=seed, steps=steps, say=tell)
    folder = trained.save(out)
    phase = trained.curve.phase
    say(f"The induction head forms in steps {phase[0]} to {phase[1]}." if phase else "No induction head forms.")
    for name, effect in trained.effects.items():
        say(f"without {name}: late loss {effect:+.3f}")
    say(f"Written: {folder.resolve()}")


def _translation(out: str, seed: int, steps: int | None) -> None:
    import sys

    import headatlas as ha

    made = ha.translation_toy(seed=seed, steps=steps, say=lambda text: say(text, file=sys.stderr))
    folder = made.save(out)
    for point in made.curve:
        say(
            f"penalty {point.penalty}: {point.open} of 8 encoder heads open, {point.rates.verbs:.3f} of verbs and "
            f"{point.rates.others:.3f} of other words right"
        )
    for check in made.checks:
        say(str(check))
    say(f"Written: {folder.resolve()}")
    if not made.passed:
        raise typer.Exit(1)
