"""`headatlas weights MODEL`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from headatlas.choices import FORM, VIEW, demand_head
from headatlas.cli import _checks as check
from headatlas.cli import _options as option
from headatlas.cli._checks import Check
from headatlas.cli._printing import print_json, say_start_end
from headatlas.errors import BadInput
from headatlas.render.console import console

if TYPE_CHECKING:
    from headatlas.methods.weights.views import View


def before(head: str | None, copying: bool, ov: bool, qk: bool, svd: bool, compose: bool) -> None:
    """Raise BadInput where several views are asked for, or one of a head that is not named."""
    demand_head(head, _view(copying, ov, qk, svd, compose))


def _view(*asked: bool) -> View:
    """The view that was asked for. Raises BadInput for several."""
    names = [name for name, flag in zip(VIEW.values, asked, strict=True) if flag] or [VIEW.values[0]]
    if len(names) > 1:
        raise BadInput(f"Asked for --{' and --'.join(names)} at once.", "Choose one.")
    return cast("View", names[0])


def weights(
    model: option.Model,
    head: Annotated[
        str | None, typer.Option(help="The head to look at, such as 18.6; all heads for --copying."), Check(check.heads)
    ] = None,
    copying: Annotated[bool, typer.Option("--copying", help="Does it raise or lower what it attends to?")] = False,
    ov: Annotated[bool, typer.Option("--ov", help="Tokens it raises and lowers when it attends to each word.")] = False,
    qk: Annotated[bool, typer.Option("--qk", help="Tokens that its query at each word looks for.")] = False,
    svd: Annotated[
        bool, typer.Option("--svd", help="Singular directions of OV and QK with tokens in and out.")
    ] = False,
    compose: Annotated[
        bool, typer.Option("--compose", help="Earlier heads it reads from, later heads that read it.")
    ] = False,
    words: Annotated[
        str | None, typer.Option(help="Words, comma-separated, taken with a space in front; default: first names.")
    ] = None,
    offset: Annotated[
        int | None, typer.Option(help="Tokens between query and key, for rotary embeddings; default: 0.")
    ] = None,
    form: Annotated[
        str,
        typer.Option(help="What stands for a token: effective (E + first MLP), embedding (E) or mlp."),
        Check(FORM.demand),
    ] = "effective",
    top: Annotated[int, typer.Option(help="Rows, or tokens a row."), check.at_least(1, "rows")] = 8,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Read what heads do off the weights alone: what they look for, what they write, which heads they build on.

    Example: headatlas weights smollm2-135m --head 23.0 --ov --words "Mary,Paris,three"
    """
    import headatlas as ha

    view = _view(copying, ov, qk, svd, compose)
    loaded = ha.load(model, dtype=dtype, device=device)
    data = ha.weights(loaded, head, view, words=words, offset=offset, form=form, top=top)
    if as_json:
        print_json(data)
        return
    {"copying": _copying, "ov": _words, "qk": _words, "svd": _svd, "compose": _compose}[view](data, top)
    say_start_end(data)


def _say(line: str) -> None:
    console().print(line, highlight=False, markup=False, soft_wrap=True)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _number(value: float | None, form: str) -> str:
    """A number, or nan where there is none."""
    return format(math.nan if value is None else value, form)


def _copying(data: dict[str, Any], top: int) -> None:
    _say(
        f"{data['n_words']} words; a copy is a word among the {data['k']} highest of the vocabulary when attended to "
        f"({data['form']} form)"
    )
    for name in ("copying", "negative"):
        best = sorted(data["heads"], key=lambda row: -row[name])[:top]
        _table(("head", name, "other word", "q", "eigenvalues"), [
            (row["head"], f"{row[name]:.2f}", f"{row[f'{name}_chance']:.2f}", _number(row[f"{name}_q"], ".1g"),
             _number(row["eigenvalues"], "+.2f"))
            for row in best
        ])  # fmt: skip


def _line(tokens: list[dict[str, Any]]) -> str:
    return " ".join(f"{entry['token']!r}" for entry in tokens)


def _words(data: dict[str, Any], top: int) -> None:
    what = "what it writes when it attends to a word"
    if data["view"] == "qk":
        what = f"what a query looks for {data['offset']} tokens back"
    _say(f"{data['model']} {data['head']}: {what} ({data['form']} form, ordinary tokens only)")
    names = [name for name in data["words"][0] if name != "word"]
    rows = [(repr(row["word"]), *(_line(row[name]) for name in names)) for row in data["words"]]
    _table(("word", *(name.replace("_", " ") for name in names)), rows)


def _svd(data: dict[str, Any], top: int) -> None:
    for circuit, names in (("ov", ("reads", "writes")), ("qk", ("query", "looks for"))):
        normed = circuit == "qk" and data["queries_normed"]
        note = "; this model norms queries and keys, which is left out" if normed else ""
        _say(f"{circuit.upper()} of {data['head']}: singular directions, both ends{note}")
        rows = []
        for number, one in enumerate(data[circuit]):
            for sign in ("up", "down"):
                first = (f"{number}", f"{one['share']:.1%}") if sign == "up" else ("", "")
                rows.append((*first, _line(one[sign][0]), _line(one[sign][1])))
        _table(("", "share", *names), rows)


def _compose(data: dict[str, Any], top: int) -> None:
    by = {"q": "queries", "k": "keys", "v": "values"}
    for name in ("reads_from", "read_by"):
        links = data[name]
        if not links:
            continue
        _say(
            f"{data['head']} {name.replace('_', ' ')} ({len(links)} pairs; chance: the stream between them turned at random)"
        )
        _table(("first", "second", "by its", "score", "chance", "deviations"), [
            (link["first"], link["second"], by[link["kind"]], f"{link['score']:.3f}", f"{link['chance']:.3f}",
             f"{link['deviations']:.0f}")
            for link in links[:top]
        ])  # fmt: skip
