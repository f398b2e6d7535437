"""Documents ordered by how much heads that retrieve attend to them from a question. Zhang et al. 2025 (QRHead), Chen et al. 2025 (ICR).

The documents stand in one prompt, the question behind them. A head gives a document the attention of the question's tokens on its tokens,
summed over those and averaged over these. What it would give it whatever was asked is taken off: the same with a question
without content ("N/A"). A head is a query-focused retrieval head as far as it so finds the document that is known to matter.
That tokens far below the mean of a document's (two standard deviations) are left out is theirs, read in their code; the wording of the prompt
is ours, and only the question's own tokens count, where they count an instruction before it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from headatlas.errors import BadInput, UnfitTask
from headatlas.heads import HeadId, Heads, parse_heads
from headatlas.model import Model
from headatlas.model.runs.mean_attention import mean_attention
from headatlas.ops import stats
from headatlas.ops.patterns import without_dips
from headatlas.ops.types import Array
from headatlas.progress import Progress, Silent
from headatlas.task import edges
from headatlas.tasks._prompts import FIRST, table

NOTHING = "N/A"  # a question without content
FRONT, BETWEEN, BACK = "Documents:", "\n[{}] ", "\n\nQuestion: {}"
PICK = 8  # heads that are taken, unless told


@dataclass(frozen=True)
class Reranked:
    """Documents by score. scores [document]: attention beyond that of a question without content, summed over heads; order: best first."""

    documents: tuple[str, ...]
    scores: Array
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> list[int]:
        """Places of the documents, best first."""
        return [int(i) for i in np.argsort(-self.scores, kind="stable")]

    @property
    def data(self) -> dict[str, Any]:
        """All of it as plain data, best first."""
        return {
            **self.facts,
            "documents": [{"place": i, "score": float(self.scores[i]), "text": self.documents[i]} for i in self.order],
        }

    def __repr__(self) -> str:
        best = self.documents[self.order[0]]
        return f"Reranked({len(self.documents)} documents, first: {best[:60]!r})"


@dataclass(frozen=True)
class QueryHeads:
    """How well each head finds the documents that matter. score [example, head]: its attention on the document that matters, beyond chance.

    heads: in the order of the model. facts: how they were measured.
    """

    heads: tuple[HeadId, ...]
    score: Array
    facts: Mapping[str, Any] = field(default_factory=dict)

    def best(self, n: int = PICK) -> tuple[HeadId, ...]:
        """The n best, by the mean. Raises BadInput where there are fewer."""
        if not 1 <= n <= len(self.heads):
            raise BadInput(f"{n} heads cannot be taken of {len(self.heads)}.", "Give a number from 1 on.")
        return tuple(self.heads[i] for i in np.argsort(-self.score.mean(0), kind="stable")[:n])

    @property
    def data(self) -> dict[str, Any]:
        """A row for each head, best first, with the 95% interval of its score."""
        low, high = stats.interval(self.score)
        mean = self.score.mean(0)
        rows = [
            {"head": str(self.heads[i]), "score": float(mean[i]), "low": float(low[i]), "high": float(high[i])}
            for i in np.argsort(-mean, kind="stable")
        ]
        return {**self.facts, "heads": rows}

    def __repr__(self) -> str:
        return f"QueryHeads({', '.join(map(str, self.best(min(5, len(self.heads)))))} ...)"


@torch.no_grad()
def rerank(model: Model, question: str, documents: Sequence[str], heads: Heads) -> Reranked:
    """Order documents by what these heads attend to from a question. Raises BadInput, UnfitTask, UnsupportedModel."""
    chosen = parse_heads(heads, model.heads)
    model.require(chosen)
    if not chosen:
        raise BadInput(
            "No head was named to order documents by.", "Name some, such as those of query_heads(model, ...).best()."
        )
    places = [model.heads.index(head) for head in chosen]
    found = document_attention(model, question, documents)[:, places].sum(1)
    facts = {
        "model": model.name,
        "weights": model.sha256(),
        "question": question,
        "heads": [str(head) for head in chosen],
    }
    return Reranked(tuple(documents), found, facts)


def query_heads(
    model: Model, examples: Sequence[tuple[str, Sequence[str], int]], progress: Progress | None = None
) -> QueryHeads:
    """Score every head on examples (question, documents, place of the one that matters): its attention there less the mean of the others'.

    Chance is 0, as documents that do not matter are the control. Raises BadInput, UnfitTask, UnsupportedModel.
    """
    progress = progress or Silent()
    if not examples:
        raise BadInput(
            "There is no example to find heads by.", "Give (question, documents, place of the one that matters)."
        )
    for question, documents, place in examples:
        if not 0 <= place < len(documents) or len(documents) < 2:
            raise BadInput(
                f"'{question[:60]}' has {len(documents)} documents and says that number {place} matters.",
                "Give 2 or more documents, and a place from 0.",
            )
    rows = []
    for question, documents, place in examples:
        found = document_attention(model, question, documents)  # [document, head]
        rows.append(found[place] - np.delete(found, place, 0).mean(0))
        progress.advance("examples", of=len(examples))
    return QueryHeads(model.heads, np.stack(rows), {"model": model.name, "weights": model.sha256(), "n": len(examples)})


@torch.no_grad()
def document_attention(model: Model, question: str, documents: Sequence[str]) -> Array:
    """[document, head] attention from the question on each document, less that from a question without content."""
    if model.kind != "decoder":
        raise BadInput(f"{model.name} does not read documents before a question.", "Take a decoder.")
    if not documents or not question.strip() or any(not one.strip() for one in documents):
        raise BadInput("A question, or a document, is empty.", "Give text to each.")
    asked, nothing = (_by_token(model, one, documents) for one in (question, NOTHING))
    found = []
    for own, without in zip(asked, nothing, strict=True):
        gain = torch.from_numpy((own - without).T.copy())  # [head, token]
        found.append(without_dips(gain, torch.ones_like(gain, dtype=torch.bool)).numpy())
    return np.stack(found)


def _by_token(model: Model, question: str, documents: Sequence[str]) -> list[Array]:
    """For each document [token, head]: attention on its tokens, averaged over the tokens of the question."""
    encode = model.tokenizer.encode
    front, _ = edges(model.tokenizer)
    ids, spans = [*front, *encode(FRONT)], []
    for number, document in enumerate(documents, 1):
        ids += encode(BETWEEN.format(number))
        own = encode(document)
        spans.append((len(ids), len(ids) + len(own)))
        ids += own
    before, _, after = BACK.partition("{}")
    ids += encode(before.rstrip())
    start = len(ids)
    ids += encode(f" {question}{after}")
    if len(ids) > model.tokenizer.context:
        raise UnfitTask(
            f"Documents and question have {len(ids)} tokens, {model.name} reads {model.tokenizer.context}.",
            "Order fewer at once.",
        )
    found = mean_attention(model, torch.tensor([ids]), torch.arange(start, len(ids))[None])[0]
    by_key = found.double().T.numpy()  # [key, head]
    return [by_key[first:last] for first, last in spans]


def recall_examples(
    model: Model, n: int, *, documents: int = 12, seed: int = 0, half: str = "find"
) -> list[tuple[str, list[str], int]]:
    """Examples from the bundled needles: facts about cities among sentences of others, one of which answers the question.

    The other facts are of the same kind about other cities, so that what was asked decides. half: "find" or "test", which share no city
    and no answer.
    """
    data = table("needle", FIRST)
    rng = np.random.default_rng(seed)
    cities, kinds = list(data["cities"][half]), list(data["needles"])
    found = []
    for _ in range(n):
        kind = kinds[int(rng.integers(len(kinds)))]
        chosen = [str(one) for one in rng.permutation(cities)[: min(documents, len(cities))]]
        answers = [
            str(rng.integers(1000, 10_000)) if kind == "number" else str(rng.choice(data[f"{kind}s"][half]))
            for _ in chosen
        ]
        texts = [
            data["needles"][kind]["text"].format(city=city, answer=answer)
            for city, answer in zip(chosen, answers, strict=True)
        ]
        place = int(rng.integers(len(chosen)))
        asked = (
            data["needles"][kind]["question"]
            .format(city=chosen[place])
            .split("\n")[0]
            .removeprefix("Question:")
            .strip()
        )
        found.append((asked, texts, place))
    return found
