"""Heads while the model writes: traces of its own text, receiver heads over sentences, retrieval heads step by step.

A trace is the beginning of a text and what the model writes after it, greedily; it is read as any window is, but events are
those of the written tokens. Receiver heads attend to few earlier sentences: the kurtosis, over sentences, of the attention
that each gets from sentences APART or more behind it (Bogdan et al. 2025, arXiv 2506.19143). Retrieval heads: at each step those
whose most attended key is the very token that is written next, outside their resting places (Wu et al. 2024), and how much that
set changes from step to step (arXiv 2602.11162).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import kurtosis
from torch import Tensor

from headatlas.heads import HeadId
from headatlas.model import LayerView, Model
from headatlas.model.core.forward_pass import Edit
from headatlas.ops.stats import mean
from headatlas.ops.types import Array
from headatlas.pages.corpus import Corpus, Read
from headatlas.progress import Progress, Silent
from headatlas.render.numbers import number, percent

APART = 4  # sentences between a sentence and those whose attention to it counts
SENTENCES = 8  # with such attention that a trace needs, to tell how unevenly it falls
SHOWN = 5  # heads that are named where the most are told
STEP = "traces"
COPIES = 0.1  # of the steps: from there on a head is one of the set that does not change
_END = re.compile(r"[.!?]|\n")


@dataclass(frozen=True)
class Generated:
    """What heads did while the model wrote.

    receiver [head]: kurtosis (Fisher's) over sentences, mean over traces; NaN where no trace has enough sentences. copies
    [head]: share of steps in which it retrieves the token that is written. steps: how many. size: heads that retrieve in a step, on
    average. jaccard: overlap of the sets of neighbouring steps; shuffled: of random pairs of steps; fixed: of a step's
    set with that of all heads that retrieve in COPIES of the steps or more. Steps at which nobody retrieves are left out of the three.
    """

    receiver: Array
    copies: Array
    steps: int
    size: float
    jaccard: float
    shuffled: float
    fixed: float

    def data(self, heads: Sequence[HeadId]) -> dict[str, Any]:
        """As plain data."""
        rows = [
            {"head": str(head), "receiver": float(self.receiver[i]), "copies": float(self.copies[i])}
            for i, head in enumerate(heads)
        ]
        plain = {name: getattr(self, name) for name in ("steps", "size", "jaccard", "shuffled", "fixed")}
        return {**plain, "heads": rows}

    def of(self, i: int) -> str:
        """What head number `i` did, in a sentence."""
        uneven = (
            ""
            if np.isnan(self.receiver[i])
            else f"; the kurtosis of its attention over sentences is {number(self.receiver[i])}"
        )
        return f"In {percent(self.copies[i])} of {self.steps:,} written tokens it looked at the token that was written next{uneven}."

    def lines(self, heads: Sequence[HeadId]) -> list[str]:
        """What was found, in words: the heads that retrieve most and receive most, and how far the retrieving set stays."""
        found = [f"no head retrieves in any of {self.steps:,} written tokens"]
        if np.any(self.copies > 0):
            found = [
                f"while it wrote {self.steps:,} tokens, {number(self.size)} heads a step looked at the token that was written next: "
                f"most often {_most(heads, self.copies, percent)}",
                f"  sets of neighbouring steps share {percent(self.jaccard)} of their heads, sets of random steps {percent(self.shuffled)}; "
                f"the set of all that do it in a tenth of the steps shares {percent(self.fixed)} with a step's own",
            ]
        told = "no trace has enough sentences to tell: write more (--generate)"
        if not np.isnan(self.receiver).all():
            told = f"attention falls on few sentences, by kurtosis: {_most(heads, self.receiver, number)}"
        return [*found, f"receiver heads: {told}"]


def _most(heads: Sequence[HeadId], values: Array, form: Callable[[Any], str]) -> str:
    """The heads with the SHOWN largest values, undefined ones left out."""
    order = [i for i in np.argsort(-values, kind="stable") if not np.isnan(values[i])][:SHOWN]
    return ", ".join(f"{heads[i]} ({form(values[i])})" for i in order)


@torch.no_grad()
def measure_generated(
    model: Model, corpus: Corpus, *, edits: Sequence[Edit] = (), progress: Progress | None = None
) -> Generated:
    """Receivers and retrieval over traces that `generated_corpus` made."""
    progress = progress or Silent()
    progress.plan([(STEP, len(corpus.windows))])
    hits: list[Tensor] = []
    uneven: list[Array] = []
    for which, window in enumerate(corpus.windows):
        text, front = corpus.texts[window.document], len(corpus.front)
        batch = corpus.batch([which])
        first = front + corpus.prompt - 1
        queries = torch.arange(first, batch.tokens.shape[1] - 1)
        sentence = torch.cat([torch.full((front,), -1), torch.from_numpy(sentences(text))])
        found: list[Tensor] = []
        vertical: list[Array] = []

        def watch(
            layer: LayerView, tokens: Tensor = batch.tokens, queries: Tensor = queries, sentence: Tensor = sentence,
            found: list[Tensor] = found, vertical: list[Array] = vertical,
        ) -> None:  # fmt: skip
            rows = layer.rows(torch.arange(layer.n_queries, device=layer.q.device))[0].float().cpu()
            best = rows[:, queries].argmax(-1)
            found.append((tokens[0, best] == tokens[0, queries + 1]) & (best > 0))
            vertical.append(vertical_scores(rows.numpy(), sentence.numpy()))

        model.forward(batch, watch=watch, edits=edits, logit_positions=torch.zeros(1, dtype=torch.long))
        hits.append(torch.cat(found))
        scores = np.concatenate(vertical)
        if scores.shape[1] >= SENTENCES:
            uneven.append(kurtosis(scores, axis=1))
        progress.advance(STEP)
    every = torch.cat(hits, 1).numpy()
    receiver = mean(np.stack(uneven)) if uneven else np.full(len(model.heads), np.nan)
    return replace(stability([one.numpy() for one in hits]), receiver=receiver, copies=every.mean(1))


def sentences(text: Read) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[token] number of the sentence that each token of a text belongs to; a mark that ends one belongs to it."""
    ends = np.array([found.end() for found in _END.finditer(text.text)], dtype=np.int64)
    number = np.searchsorted(ends, text.spans[:, 1] - 1, side="right")
    _, found = np.unique(number, return_inverse=True)
    return found.astype(np.int64)


def vertical_scores(rows: Array, sentence: np.ndarray[Any, np.dtype[np.int64]]) -> Array:
    """[head, sentence] the mean attention weight to a sentence's tokens from those of sentences APART or more behind it.

    rows [head, query, key]; sentence [token], -1 outside. Sentences with no such other are left out.
    """
    last = int(sentence.max())
    scores = []
    for one in range(last - APART + 1):
        queries, keys = sentence >= one + APART, sentence == one
        scores.append(rows[:, queries][:, :, keys].mean((1, 2)))
    return np.stack(scores, 1) if scores else np.zeros((len(rows), 0))


def stability(hits: Sequence[np.ndarray[Any, np.dtype[np.bool_]]]) -> Generated:
    """How the set of retrieving heads changes; hits: for each trace [head, step]."""
    every = np.concatenate(hits, 1)
    used = [trace[:, trace.any(0)] for trace in hits]
    steps = np.concatenate(used, 1)
    near = [_jaccard(trace[:, :-1], trace[:, 1:]) for trace in used if trace.shape[1] > 1]
    order = np.random.default_rng(0).permutation(steps.shape[1])
    always = (every.mean(1) >= COPIES)[:, None]
    return Generated(
        np.full(len(every), np.nan), every.mean(1), every.shape[1], float(every.sum(0).mean()),
        _average(near), _average([_jaccard(steps, steps[:, order])]), _average([_jaccard(steps, np.broadcast_to(always, steps.shape))]),
    )  # fmt: skip


def _jaccard(a: np.ndarray[Any, np.dtype[np.bool_]], b: np.ndarray[Any, np.dtype[np.bool_]]) -> Array:
    """[step] how much of two sets of heads [head, step] they share."""
    both, either = (a & b).sum(0), (a | b).sum(0)
    found: Array = both / np.maximum(either, 1)
    return found


def _average(parts: Sequence[Array]) -> float:
    values = np.concatenate(parts) if parts else np.zeros(0)
    return float(values.mean()) if len(values) else float("nan")
