"""`headatlas weights MODEL`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headatlas.cli import _options as option

if TYPE_CHECKING:
    from headatlas.methods.weights.qk_ov import TopTokens
    from headatlas.model import Tokenizer


def weights(
    model: option.Model,
    head: Annotated[
        str | None, typer.Option(help="The head to look at, such as 18.6; all heads for --copying.")
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
        str, typer.Option(help="What stands for a token: effective (E + first MLP), embedding (E) or mlp.")
    ] = "effective",
    top: Annotated[int, typer.Option(help="Rows, or tokens a row.")] = 8,
    device: option.Device = None,
    dtype: option.Dtype = "auto",
    as_json: option.Json = False,
) -> None:
    """Read what heads do off the weights alone: what they look for, what they write, which heads they build on.

    Example: headatlas weights smollm2-135m --head 23.0 --ov --words "Mary,Paris,three"
    """
    import headatlas as ha
    from headatlas.errors import BadInput
    from headatlas.heads import HeadId
    from headatlas.methods.weights.copying import tokens_of

    asked = [name for name, flag in zip(_VIEWS, (copying, ov, qk, svd, compose), strict=True) if flag] or ["copying"]
    if len(asked) > 1:
        raise BadInput(f"Asked for --{' and --'.join(asked)} at once.", "Choose one.")
    if head is None and asked != ["copying"]:
        raise BadInput(f"--{asked[0]} looks at one head.", "Add --head LAYER.HEAD, such as --head 18.6.")
    if top < 1:
        raise BadInput(f"--top {top} shows nothing.", "Give 1 or more.")
    one = HeadId.parse(head) if head is not None else None
    loaded = ha.load(model, dtype=dtype, device=device)
    if one is not None:
        loaded.require([one])
    names = [word for word in words.split(",") if word.strip()] if words is not None else None
    show = {"copying": _copying, "ov": _tokens, "qk": _tokens, "svd": _svd, "compose": _compose}[asked[0]]
    tokens = tokens_of(loaded.tokenizer, names) if asked[0] in ("copying", "ov", "qk") else None
    how = {"tokens": tokens, "offset": offset, "form": form, "top": top, "given": names is not None, "view": asked[0]}
    data = {"model": loaded.name, "view": asked[0], "head": head, **show(loaded, one, how, not as_json)}
    if as_json:
        print(json.dumps(data, ensure_ascii=False))


_VIEWS = ("copying", "ov", "qk", "svd", "compose")


def _say(line: str) -> None:
    from rich.console import Console

    Console().print(line, highlight=False, markup=False, soft_wrap=True)


def _show(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)


def _copying(model: Any, head: Any, how: dict[str, Any], shown: bool) -> dict[str, Any]:
    from headatlas.methods.weights.copying import copy_scores, eigenvalue_scores
    from headatlas.store import clean

    heads = None if head is None else [head]
    raised, lowered = copy_scores(model, how["tokens"], form=how["form"], heads=heads)
    eigen = eigenvalue_scores(model, form=how["form"], heads=heads)
    rows = [
        {"head": str(up.head), "copying": up.score, "copying_chance": up.chance, "copying_q": up.q, "negative": down.score,
         "negative_chance": down.chance, "negative_q": down.q, "eigenvalues": float(value)}
        for up, down, value in zip(raised.summary(), lowered.summary(), eigen, strict=True)
    ]  # fmt: skip
    if shown:
        _say(
            f"{len(how['tokens'])} words; a copy is a word among the 5 highest of the vocabulary when attended to ({how['form']} form)"
        )
        for name in ("copying", "negative"):
            best = sorted(
                zip((raised if name == "copying" else lowered).summary(), eigen, strict=True),
                key=lambda pair: -pair[0].score,
            )
            _show(("head", name, "other word", "q", "eigenvalues"), [
                (str(line.head), f"{line.score:.2f}", f"{line.chance:.2f}", f"{line.q:.1g}", f"{value:+.2f}")
                for line, value in best[: how["top"]]
            ])  # fmt: skip
    found: dict[str, Any] = clean({"form": how["form"], "n_words": len(how["tokens"]), "k": 5, "heads": rows})
    return found


def _ids(model: Any) -> Any:
    import torch

    return torch.tensor(model.tokenizer.plain_ids())


def _texts(tokenizer: Tokenizer, found: TopTokens) -> list[list[dict[str, Any]]]:
    return [
        [{"token": text, "score": score} for text, score in zip(tokenizer.pieces(ids), scores, strict=True)]
        for ids, scores in zip(found.tokens.tolist(), found.scores.tolist(), strict=True)
    ]


def _line(tokens: list[dict[str, Any]]) -> str:
    return " ".join(f"{entry['token']!r}" for entry in tokens)


def _tokens(model: Any, head: Any, how: dict[str, Any], shown: bool) -> dict[str, Any]:
    from headatlas.methods.weights.qk_ov import attends_to, writes_of

    tokens = how["tokens"] if how["given"] else how["tokens"][:5]
    if how["view"] == "ov":
        names = ("raises", "lowers")
        found = writes_of(model, head, tokens, how["top"], form=how["form"], among=_ids(model))
    else:
        names = ("looks for", "avoids")
        found = attends_to(model, head, tokens, how["top"], offset=how["offset"], form=how["form"], among=_ids(model))
    sides = [_texts(model.tokenizer, side) for side in found]
    words = model.tokenizer.pieces(tokens.tolist())
    rows = [
        {"word": word, names[0].replace(" ", "_"): high, names[1]: low}
        for word, high, low in zip(words, *sides, strict=True)
    ]
    if shown:
        _say(_about(model, head, how))
        _show(("word", *names), [(repr(word), _line(high), _line(low)) for word, high, low in zip(words, *sides, strict=True)])  # fmt: skip
    return {"form": how["form"], "offset": how["offset"] or 0 if how["view"] == "qk" else None, "words": rows}


def _about(model: Any, head: Any, how: dict[str, Any]) -> str:
    what = {
        "ov": "what it writes when it attends to a word",
        "qk": f"what a query looks for {how['offset'] or 0} tokens back",
    }
    return f"{model.name} {head}: {what[how['view']]} ({how['form']} form, ordinary tokens only)"


def _svd(model: Any, head: Any, how: dict[str, Any], shown: bool) -> dict[str, Any]:
    from headatlas.methods.weights.qk_ov import circuits_of, singular

    data: dict[str, Any] = {"form": how["form"], "offset": how["offset"] or 0}
    data["queries_normed"] = circuits_of(model, head.layer, head.stack).normed
    for circuit, names in (("ov", ("reads", "writes")), ("qk", ("query", "looks for"))):
        found = singular(
            model, head, circuit, 5, how["top"], form=how["form"], among=_ids(model), offset=how["offset"] if circuit == "qk" else None,
        )  # fmt: skip
        data[circuit] = [
            {"size": one.size, "share": one.share, "up": [_texts(model.tokenizer, side)[0] for side in one.up],
             "down": [_texts(model.tokenizer, side)[0] for side in one.down]}
            for one in found
        ]  # fmt: skip
        if shown:
            note = (
                "; this model norms queries and keys, which is left out"
                if circuit == "qk" and data["queries_normed"]
                else ""
            )
            _say(f"{circuit.upper()} of {head}: singular directions, both ends{note}")
            rows = []
            for number, one in enumerate(data[circuit]):
                for sign in ("up", "down"):
                    first = (f"{number}", f"{one['share']:.1%}") if sign == "up" else ("", "")
                    rows.append((*first, _line(one[sign][0]), _line(one[sign][1])))
            _show(("", "share", *names), rows)
    return data


def _compose(model: Any, head: Any, how: dict[str, Any], shown: bool) -> dict[str, Any]:
    from headatlas.methods.weights.composition import compose

    data: dict[str, Any] = {"offset": how["offset"] or 0}
    for name, ends in (("reads_from", (None, [head])), ("read_by", ([head], None))):
        found = compose(model, *ends, offset=how["offset"])
        data["floor"] = found.floor
        links = found.links()
        data[name] = [
            {"first": str(link.first), "second": str(link.second), "kind": link.kind, "score": link.score, "chance": link.chance,
             "deviations": link.deviations}
            for link in links
        ]  # fmt: skip
        if shown and links:
            _say(
                f"{head} {name.replace('_', ' ')} ({len(links)} pairs; chance: the stream between them turned at random)"
            )
            _show(("first", "second", "by its", "score", "chance", "deviations"), [
                (str(link.first), str(link.second), {"q": "queries", "k": "keys", "v": "values"}[link.kind], f"{link.score:.3f}", f"{link.chance:.3f}",
                 f"{link.deviations:.0f}")
                for link in links[: how["top"]]
            ])  # fmt: skip
    return data
