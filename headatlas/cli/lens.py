"""`headatlas lens MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json


def lens(
    model: option.Model,
    prompt: Annotated[str | None, typer.Option(help="A text.")] = None,
    task: Annotated[
        str | None, typer.Option(help="A prompt of a built-in task (headatlas list tasks)."), Check(check.task)
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(help="These heads, such as '9.6 9.9'; default: the largest writes."),
        Check(check.heads),
    ] = None,
    position: Annotated[int | None, typer.Option(help="Token at which to look, from 0; default: the last.")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens shown on either side."), check.at_least(1, "tokens")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the task's prompt.")] = 0,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Show the tokens that each head's write makes more and less likely at one position.

    Example: headatlas lens smollm2-135m --prompt "The capital of France is" --top 8
    """
    from rich.table import Table

    import headatlas as ha
    from headatlas.render.console import console

    data = ha.lens(
        ha.load(model, dtype=dtype, device=device), prompt, task=task, heads=heads or None, position=position, tokens=tokens,
        seed=seed, top=top,
    )  # fmt: skip
    if as_json:
        print_json(data)
        return
    screen = console()
    shown = lambda text: repr(text).replace(" ", "·")  # noqa: E731
    say = lambda text: screen.print(text, highlight=False, markup=False, soft_wrap=True)  # noqa: E731
    say(
        f"At token {data['position']}, {shown(data['token'])}, the model's next tokens: {' '.join(map(shown, data['predicted']))}"
    )
    table = Table("head", "size", "promotes", "suppresses", box=None, pad_edge=False)
    for row in data["heads"]:
        sides = (
            " ".join(f"{shown(one['token'])} {one['logit']:+.2f}" for one in row[side])
            for side in ("promoted", "suppressed")
        )
        table.add_row(row["head"], f"{row['size']:.3f}", *sides)
    screen.print(table)
    say("logits that the write adds, less their mean over the vocabulary; size: their standard deviation")
    for note in data["notes"]:
        say(f"note: {note}")
