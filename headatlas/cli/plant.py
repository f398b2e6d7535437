"""`headatlas plant HEAD...`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _options as option
from headatlas.render.escape import say

library = ("headatlas.plant", "headatlas.lab.accuracy.accuracy_table")


def plant(
    heads: Annotated[
        list[str] | None,
        typer.Argument(help="layer.head:kind[:strength][:option=value ...], such as 1.0:induction:0.6."),
    ] = None,
    out: Annotated[str | None, option.NEW_FOLDER] = None,
    architecture: Annotated[str, typer.Option(help="gpt2 or llama.")] = "gpt2",
    n_layers: Annotated[int, typer.Option("--layers", help="Number of layers.")] = 2,
    n_heads: Annotated[int, typer.Option("--heads", help="Heads in each layer.")] = 4,
    n_kv_heads: Annotated[
        int | None, typer.Option("--kv-heads", help="KV heads in each layer; default: as many as heads.")
    ] = None,
    width: Annotated[int, typer.Option(help="Width of the residual stream, 64 or more.")] = 128,
    vocab: Annotated[int, typer.Option(help="Size of the vocabulary, 128 or more.")] = 256,
    context: Annotated[int, typer.Option(help="Longest input in tokens.")] = 256,
    noise: Annotated[float, typer.Option(help="Superposition noise; 0.01 is slight, 0.1 strong.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the random parts.")] = 0,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Print how exact each kind is over a grid of models, as in docs/lab.md.")
    ] = False,
) -> None:
    """Write a model whose heads are known by construction, and measure that they do what was asked.

    Example: headatlas plant 0.0:previous 1.0:induction 1.2:positional:0.5:offset=3 --out models/planted
    """
    from pathlib import Path

    import headatlas as ha
    from headatlas.errors import BadInput, StoreError
    from headatlas.lab.measure import read_all
    from headatlas.lab.spec import PlantSpec, parse_head

    if accuracy:
        from headatlas.lab.accuracy import accuracy_table, measured, noise_table
        from headatlas.progress import Stderr

        rows = measured(Stderr())
        say(f"{accuracy_table(rows)}\n\n{noise_table()}")
        return
    if not heads or out is None:
        raise BadInput("Nothing to plant, or no folder to put it in.", "Name heads such as 0.0:previous, and --out.")
    if Path(out).exists():
        raise StoreError(f"{out} exists already.", "Name a folder that does not exist yet.")
    planted = ha.plant(
        PlantSpec(tuple(parse_head(text) for text in heads), noise=noise),
        architecture=architecture,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        width=width,
        vocab=vocab,
        context=context,
        seed=seed,
    )
    for head, reading in read_all(planted).items():
        effect = "" if reading.loss is None else f", loss without it {reading.loss:+.3f}"
        say(
            f"{head!s:>6} {reading.head.kind:<18} attention on target {reading.attention:.3f} "
            f"(asked {reading.head.strength:g}), logit {reading.logit:+.2f}{effect}"
        )
    say(f"Written: {planted.save(out).resolve()}")
