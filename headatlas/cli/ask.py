"""`headatlas ask MODEL`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headatlas.choices import REMOVED, demand_metric
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli import _sources as sources
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json, say_start_end

if TYPE_CHECKING:
    from headatlas.asking import Asked, AskedHead

SHOWN = 3  # prompts whose predictions are printed


def before(text: list[str] | None, chat: str | None, prompts: str | None) -> None:
    """Raise BadInput unless one source of texts is named."""
    sources.one_source(text=text, chat=chat, prompts=prompts)


def ask(
    model: option.Model,
    text: option.Text = None,
    chat: option.Chat = None,
    prompts: option.TextPrompts = None,
    edit: Annotated[
        str,
        typer.Option(help="mean (over the tokens of these prompts) or zero: what stands for a removed head's output."),
        Check(REMOVED.demand),
    ] = "mean",
    atlas: Annotated[
        str | None,
        typer.Option(help="Folder of runs of `headatlas mine` to look heads up in; default ./atlas."),
        Check(check.run),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(help="What heads are ordered by: kl, logit-difference, log-probability, rank ..."),
        Check(demand_metric),
    ] = "kl",
    top: option.Top = 10,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Which heads matter for your prompt? Remove every head in turn and see what the model says then.

    KL is how far the next token's distribution moves from that of the whole model; --metric orders heads by another. What is known of the heads comes from an
    atlas of this model where there is one.

    Example: headatlas ask smollm2-135m --text "The capital of France is"
    """
    import headatlas as ha
    from headatlas.cli._progress import Shown

    given = ha.Texts(text or (), chat, prompts)
    with Shown() as shown:
        found = ha.ask(
            ha.load(model, dtype=dtype, device=device), given, top=top, edit=edit, atlas=atlas, metric=metric,
            progress=shown,
        )  # fmt: skip
    if as_json:
        print_json(found.data())
    else:
        _show(found)


def _show(found: Asked) -> None:
    from rich.table import Table

    from headatlas.render.console import console

    screen = console()
    line = lambda text: screen.print(text, highlight=False, markup=False, overflow="ellipsis", no_wrap=True)  # noqa: E731
    say = lambda text: screen.print(text, highlight=False, markup=False)  # noqa: E731
    for prompt, likely in list(zip(found.texts, found.predicted, strict=True))[:SHOWN]:
        line(f"...{prompt[-72:]}" if len(prompt) > 75 else prompt)
        line("  next: " + "  ".join(f"{token!r} {p:.3f}" for token, p in likely))
    if len(found.texts) > SHOWN:
        say(f"and {len(found.texts) - SHOWN} more prompts; below are means over all of them")
    several, known = len(found.texts) > 1, found.atlas is not None
    answer = "the answer" if several else repr(found.answers[0])
    change = "" if found.metric == "kl" else f"change of {found.metric}{f' in {found.unit}' if found.unit else ''}, "
    say(f"Each of {found.n_heads} heads removed in turn ({found.edit} ablation); {change}KL in nats, p of {answer}:")
    other = found.metric != "kl"
    table = Table("head", *([found.metric] if other else []), "KL", "p before", "p after", box=None, pad_edge=False)
    if not several:
        table.add_column("then says", no_wrap=True, overflow="ellipsis")
    if known:
        table.add_column("known as: score (chance)", no_wrap=True, overflow="ellipsis")
    for row in found.heads:
        own = [f"{row.effect:+.4f}"] if row.effect is not None else []
        cells = [str(row.head), *own, f"{row.kl:.4f}", f"{row.before:.3f}", f"{row.after:.3f}"]
        table.add_row(*cells, *([] if several else [repr(row.becomes[0])]), *([_known(row)] if known else []))
    screen.print(table)
    share = (
        sum(row.kl if row.effect is None else abs(row.effect) for row in found.heads) / found.total
        if found.total
        else 0.0
    )
    say(f"They have {share:.0%} of the sum over all heads; effects of single heads need not add up.")
    say_start_end({"start_end": found.start_end})
    if not known:
        say(f"No atlas of this model is here: headatlas mine {found.model} tells what kinds of heads these are.")


def _known(row: AskedHead) -> str:
    """The strongest kind with its score, chance and verdict, and how many more there are."""
    if not row.kinds:
        return "nothing observed"
    first, more = row.kinds[0], len(row.kinds) - 1
    numbers = "" if first.score is None or first.chance is None else f" {first.score:.2f} ({first.chance:.2f})"
    return f"{first.title}{numbers}, {first.verdict}" + (f"; +{more}" if more else "")
