"""`headatlas lens MODEL`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json, say_start_end


def before(
    text: list[str] | None, chat: str | None, prompts: str | None, task: str | None, position: str | None
) -> None:
    """Raise BadInput unless one source of texts is named, in which the position stands."""
    sources.one_source(text=text, chat=chat, prompts=prompts, task=task)
    sources.demand_token(position, task, prompts)


def lens(
    model: option.Model,
    text: option.Text = None,
    chat: option.Chat = None,
    prompts: option.TextPrompts = None,
    task: Annotated[
        str | None, typer.Option(help="A prompt of a built-in task (headatlas list tasks)."), Check(check.task)
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(help="These heads, such as '9.6 9.9'; default: the largest writes."),
        Check(check.heads),
    ] = None,
    position: Annotated[
        str | None, typer.Option(help="Token at which to look, from 0, or a named position; default: the last.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens shown on either side."), check.at_least(1, "tokens")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the task's prompt.")] = 0,
    top: option.Top = 15,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Show the tokens that each head's write makes more and less likely at one position.

    Example: headatlas lens smollm2-135m --text "The capital of France is" --top 8
    """
    import headatlas as ha

    loaded = ha.load(model, dtype=dtype, device=device)
    batch = ha.Texts(text or (), chat, prompts, task, n=1, seed=seed).read(loaded)
    number = None if position is None else sources.number_of(position)
    place = position if number is None else number
    found = [
        ha.lens(loaded, batch.rows([i]), heads=heads or None, position=place, tokens=tokens, top=top)
        for i in range(len(batch))
    ]
    if as_json:
        print_json(found[0] if len(found) == 1 else {"schema": "headatlas/lenses/1", "prompts": found})
        return
    for data in found:
        _show(data)


def _show(data: dict[str, Any]) -> None:
    from rich.table import Table

    from headatlas.render.console import console

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
    say_start_end(data)
