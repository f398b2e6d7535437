"""Text that a model writes, as a corpus: it goes on from the beginnings of texts, many of them at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headatlas.errors import BadInput, UnsupportedModel
from headatlas.model import Model
from headatlas.model.core.hooks import evaluating
from headatlas.pages.corpus import LENGTH, Corpus, Read, Window
from headatlas.pages.sources import Given, documents
from headatlas.pages.structure import structure_of
from headatlas.progress import AtMost, Progress, Silent
from headatlas.store import read_json, write_json

PROMPT = 48  # tokens of each text that the model is given
AT_ONCE = 16  # texts that are gone on with side by side; all have the same length, so that nothing is padded
STEP = "write"
KEPT = "traces.json"  # what was written before an interruption


def beginnings(model: Model, corpus: Given, tokens: int, length: int | None, new: int) -> Corpus:
    """The first PROMPT tokens of as many texts as are needed for `tokens` where each is gone on with by `new`.

    Raises BadInput where a trace does not fit into a window, or no text is long enough; UnsupportedModel for a model that
    writes nothing.
    """
    if not model.has_logits or len(model.stacks) > 1 or not all(layer.causal for layer in model.layers):
        raise UnsupportedModel(f"{model.name} writes no text.", "Ask for a decoder with a language-model head.")
    tokenizer = model.tokenizer
    size = min(LENGTH, tokenizer.context) if length is None else length
    if len(tokenizer.front) + PROMPT + new > min(size, tokenizer.context):
        raise BadInput(
            f"{new} tokens behind a prompt of {PROMPT} do not fit into a window of {size}.",
            f"Generate {max(size - PROMPT - len(tokenizer.front), 0)} or fewer, or give longer windows (--length).",
        )
    first = [_read(name, model, ids) for name, ids in islice(_prompts(model, corpus), math.ceil(tokens / new))]
    if not first:
        raise BadInput(f"The corpus has no text of {PROMPT} tokens, after which the model writes anything.")
    return _corpus(model, first)


def generated_corpus(
    model: Model,
    corpus: Given,
    tokens: int,
    length: int | None,
    new: int,
    *,
    place: Path | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Traces in which the model goes on, greedily, from the beginning of each text, by `new` tokens, until `tokens` are written.

    A trace ends where the model ends it. place: a folder in which what is written is kept, and looked for. Raises what
    `beginnings` raises, and BadInput where nothing is written.
    """
    beginnings(model, corpus, tokens, length, new)
    progress = progress or Silent()
    progress.plan([(STEP, tokens)])
    told, source = AtMost(progress, STEP, tokens), _prompts(model, corpus)
    file = None if place is None else place / KEPT
    known: list[list[int]] = read_json(file)["traces"] if file is not None and file.exists() else []
    texts: list[Read] = []
    rows: list[list[int]] = []
    while (left := tokens - sum(len(row) - PROMPT for row in rows)) > 0:
        group = list(islice(source, min(AT_ONCE, math.ceil(left / new))))
        if not group:
            break
        prompts = [ids for _, ids in group]
        made = known[len(rows) : len(rows) + len(group)]
        if [row[:PROMPT] for row in made] == prompts:
            told.advance(STEP, sum(len(row) - PROMPT for row in made))
        else:
            made = _gone_on_with(model, prompts, new, told)
        rows += made
        texts += [_read(f"{name}, gone on with", model, row) for (name, _), row in zip(group, made, strict=True)]
        if file is not None and len(rows) > len(known):
            write_json(file, {"traces": rows})
    told.ends()
    if not any(len(row) > PROMPT for row in rows):
        raise BadInput(f"The corpus has no text of {PROMPT} tokens, after which the model writes anything.")
    return _corpus(model, texts)


def _prompts(model: Model, corpus: Given) -> Iterator[tuple[str, list[int]]]:
    """The name and the first PROMPT tokens of each text that has as many."""
    for one in documents(corpus):
        ids = model.tokenizer.encode(one.text)[:PROMPT]
        if len(ids) == PROMPT:
            yield one.name, ids


class _Told:
    """A criterion of transformers' for stopping, which stops nothing: it says after each step that each text has a token more."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, input_ids: Tensor, scores: Tensor, **more: Any) -> Tensor:
        self._progress.advance(STEP, len(input_ids))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@torch.no_grad()
def _gone_on_with(model: Model, prompts: Sequence[Sequence[int]], new: int, progress: Progress) -> list[list[int]]:
    """Each prompt and what the model writes behind it, its own end token included."""
    front = model.tokenizer.front
    given = torch.tensor([[*front, *ids] for ids in prompts], device=model.device)
    last = model.hf.generation_config.eos_token_id  # type: ignore[union-attr]
    ends = torch.tensor([] if last is None else last, dtype=torch.long, device=model.device).reshape(-1)
    # A token for padding is named so that transformers need not announce that it chose one; nothing is known by it.
    pad = int(ends[0]) if len(ends) else int(given[0, -1])
    with evaluating(model.hf):
        written = model.hf.generate(  # type: ignore[operator]
            input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=new, do_sample=False, num_beams=1, pad_token_id=pad,
            stopping_criteria=[_Told(progress)],
        )[:, given.shape[1] :]  # fmt: skip
    rows = []
    for ids, row in zip(prompts, written, strict=True):
        stops = torch.isin(row, ends).nonzero()  # behind its end a row is padded until the longest ends
        rows.append([*ids, *row[: int(stops[0]) + 1 if len(stops) else None].tolist()])
    return rows


def _corpus(model: Model, texts: Sequence[Read]) -> Corpus:
    front = model.tokenizer.front
    windows = tuple(Window(number, 0, len(text.ids)) for number, text in enumerate(texts))
    longest = max(window.stop for window in windows) + len(front)
    return Corpus("text that the model wrote", tuple(texts), windows, front, (), longest, prompt=PROMPT)


def _read(name: str, model: Model, ids: list[int]) -> Read:
    """A trace as a text; its characters are those of its tokens, one after the other."""
    visible = {"⏎": "\n", "⇥": "\t", "␍": "\r"}
    pieces = ["".join(visible.get(letter, letter) for letter in piece) for piece in model.tokenizer.pieces(ids)]
    ends = np.cumsum([len(piece) for piece in pieces])
    spans = np.stack([ends - [len(piece) for piece in pieces], ends], 1).astype(np.int64)
    text = "".join(pieces)
    return Read(
        name, text, np.array(ids, dtype=np.int64), spans, structure_of(text, spans, model.tokenizer.word_starts(ids))
    )
