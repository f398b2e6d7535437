"""What a head does, read off the weights, as plain data: one view at a time, for a notebook, a table or JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from headatlas.choices import VIEW, demand_head
from headatlas.errors import BadInput
from headatlas.heads import HeadId
from headatlas.methods.weights.composition import compose
from headatlas.methods.weights.copying import copy_scores, eigenvalue_scores, tokens_of
from headatlas.methods.weights.qk_ov import TopTokens, attends_to, circuits_of, singular, writes_of
from headatlas.model import Model
from headatlas.model.text.start_end import ALONE
from headatlas.store import clean

View = Literal["copying", "ov", "qk", "svd", "compose"]
K = 5  # a copy is a word among so many highest of the vocabulary
FEW = 5  # words that are shown unless words are named
DIRECTIONS = 5  # singular directions


@dataclass(frozen=True)
class _Question:
    """What is asked of a head. words: ids [token]; None where a view reads no words."""

    head: HeadId | None
    words: Tensor | None
    offset: int | None
    form: str
    top: int

    @property
    def one(self) -> HeadId:
        """The head, for views that look at one."""
        assert self.head is not None
        return self.head


def weights(
    model: Model,
    head: HeadId | str | tuple[int, int] | None = None,
    view: View = "copying",
    *,
    words: Sequence[str] | str | None = None,
    offset: int | None = None,
    form: str = "effective",
    top: int = 8,
) -> dict[str, Any]:
    """Read what heads do off the weights alone: what they look for, what they write, which heads they build on.

    view: copying (does it raise or lower what it attends to; of all heads where none is named), ov (tokens that it raises and
    lowers when it attends to each word), qk (tokens that its query at each word looks for), svd (singular directions of OV
    and QK) or compose (earlier heads it reads from, later heads that read it). words: comma-separated text or a list, each
    taken with a space in front; default first names. offset: tokens between query and key, for rotary embeddings. form: what
    stands for a token: effective, embedding or mlp. top: tokens a row. Raises BadInput, UnsupportedModel.
    """
    require(head, view, top)
    one = HeadId.parse(head) if head is not None else None
    if one is not None:
        model.require([one])
    names = words.split(",") if isinstance(words, str) else words
    names = [word for word in names if word.strip()] if names is not None else None
    read = None
    if view in ("copying", "ov", "qk"):
        read = tokens_of(model.tokenizer, names)
        read = read[:FEW] if names is None and view != "copying" else read
    asked = _Question(one, read, offset, form, top)
    facts = {"model": model.name, "view": view, "head": None if one is None else str(one), "start_end": ALONE}
    return {**facts, **_VIEWS[view](model, asked)}


def require(head: HeadId | str | tuple[int, int] | None, view: str, top: int) -> None:
    """Raise BadInput for a view that does not exist, or that looks at one head where none is named."""
    VIEW.demand(view)
    demand_head(head, view)
    if top < 1:
        raise BadInput(f"--top {top} shows nothing.", "Give 1 or more.")


def _copying(model: Model, asked: _Question) -> dict[str, Any]:
    assert asked.words is not None
    heads = None if asked.head is None else [asked.head]
    raised, lowered = copy_scores(model, asked.words, K, form=asked.form, heads=heads)
    eigen = eigenvalue_scores(model, form=asked.form, heads=heads)
    rows = [
        {"head": str(up.head), "copying": up.score, "copying_chance": up.chance, "copying_q": up.q, "negative": down.score,
         "negative_chance": down.chance, "negative_q": down.q, "eigenvalues": float(value)}
        for up, down, value in zip(raised.summary(), lowered.summary(), eigen, strict=True)
    ]  # fmt: skip
    found: dict[str, Any] = clean({"form": asked.form, "n_words": len(asked.words), "k": K, "heads": rows})
    return found


def _ov(model: Model, asked: _Question) -> dict[str, Any]:
    assert asked.words is not None
    found = writes_of(model, asked.one, asked.words, asked.top, form=asked.form, among=_ordinary(model))
    return {"form": asked.form, "offset": None, "words": _words(model, asked.words, ("raises", "lowers"), found)}


def _qk(model: Model, asked: _Question) -> dict[str, Any]:
    assert asked.words is not None
    among = _ordinary(model)
    found = attends_to(model, asked.one, asked.words, asked.top, offset=asked.offset, form=asked.form, among=among)
    names = ("looks_for", "avoids")
    return {"form": asked.form, "offset": asked.offset or 0, "words": _words(model, asked.words, names, found)}


def _svd(model: Model, asked: _Question) -> dict[str, Any]:
    head = asked.one
    data: dict[str, Any] = {"form": asked.form, "offset": asked.offset or 0}
    data["queries_normed"] = circuits_of(model, head.layer, head.stack).normed
    for circuit in ("ov", "qk"):
        offset = asked.offset if circuit == "qk" else None
        found = singular(
            model, head, circuit, DIRECTIONS, asked.top, form=asked.form, among=_ordinary(model), offset=offset
        )
        data[circuit] = [
            {"size": one.size, "share": one.share, "up": [_texts(model, side)[0] for side in one.up],
             "down": [_texts(model, side)[0] for side in one.down]}
            for one in found
        ]  # fmt: skip
    return data


def _compose(model: Model, asked: _Question) -> dict[str, Any]:
    data: dict[str, Any] = {"offset": asked.offset or 0}
    for name, ends in (("reads_from", (None, [asked.one])), ("read_by", ([asked.one], None))):
        found = compose(model, *ends, offset=asked.offset)
        data["floor"] = found.floor
        data[name] = [
            {"first": str(link.first), "second": str(link.second), "kind": link.kind, "score": link.score, "chance": link.chance,
             "deviations": link.deviations}
            for link in found.links()
        ]  # fmt: skip
    return data


_VIEWS: dict[View, Callable[[Model, _Question], dict[str, Any]]] = {
    "copying": _copying, "ov": _ov, "qk": _qk, "svd": _svd, "compose": _compose,
}  # fmt: skip


def _ordinary(model: Model) -> Tensor:
    """Ids [token] of ordinary text tokens: special and unused ones say nothing."""
    return torch.tensor(model.tokenizer.plain_ids())


def _words(
    model: Model, words: Tensor, names: tuple[str, str], found: tuple[TopTokens, TopTokens]
) -> list[dict[str, Any]]:
    """A row per word with the tokens at either end."""
    high, low = (_texts(model, side) for side in found)
    texts = model.tokenizer.pieces(words.tolist())
    return [{"word": word, names[0]: most, names[1]: least} for word, most, least in zip(texts, high, low, strict=True)]


def _texts(model: Model, found: TopTokens) -> list[list[dict[str, Any]]]:
    return [
        [{"token": text, "score": score} for text, score in zip(model.tokenizer.pieces(ids), scores, strict=True)]
        for ids, scores in zip(found.tokens.tolist(), found.scores.tolist(), strict=True)
    ]
