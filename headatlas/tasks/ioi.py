"""Indirect object identification: of two people, one is named twice and gives something; to whom? Wang et al. 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from headatlas.errors import UnfitTask
from headatlas.renamed import old_names
from headatlas.task import Batch, Vocabulary, edges, logit_difference, task
from headatlas.tasks._ioi_words import NAMES, one_token_names, words
from headatlas.tasks._prompts import SECOND, table


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Notes, letters and scenes in place of stories, with the words for testing."""
    return _build(tokenizer, n, rng, "test", table("ioi", SECOND)["templates"])


@task(metric=logit_difference, version=1, margin=1.0, second=_second)
def ioi(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] "... B and A went to the PLACE. B gave a OBJECT to": the answer is A, who is named once, and not B.

    Fifteen wordings, each with B first (label kind 0) and A first (kind 1), in turn (label template: 0 to 29); names,
    places and objects of the half for finding heads. Positions: io (A), s1, s1_next, s2 (both namings of B and the token after the first), end.
    Metric: logit of A minus logit of B. Counterfactual: the same prompt with three other, unrelated names (ABC).
    Control: the second B replaced by a third name, so that nothing tells A from B.
    """
    return _build(tokenizer, n, rng, "find")


@task(metric=logit_difference, version=1, margin=1.0, second=_second)
def ioi_held_out(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """The task `ioi` with the other half of the names, places and objects: for testing heads that were found on `ioi`."""
    return _build(tokenizer, n, rng, "test")


def _build(
    tokenizer: Vocabulary,
    n: int,
    rng: np.random.Generator,
    half: str,
    templates: Mapping[str, Sequence[str]] | None = None,
) -> Batch:
    """`n` prompts from one half of the words. Raises UnfitTask with what the tokenizer lacks."""
    if not tokenizer.causal:
        raise UnfitTask("ioi asks for the next word; this model has bidirectional attention.")
    data = words()
    templates = templates or data["templates"]
    names = one_token_names(tokenizer, data["names"][half])
    wordings = [
        (kind, len(templates[name]) * kind + i, text)
        for kind, name in enumerate(("baba", "abba"))
        for i, text in enumerate(templates[name])
    ]
    order = [wordings[i] for i in _balanced(len(wordings) // 2, rng)]
    rows: dict[str, list[list[int]]] = {"prompt": [], "counterfactual": [], "control": []}
    places: dict[str, list[int]] = {name: [] for name in ("io", "s1", "s1_next", "s2", "end")}
    labels: dict[str, list[int]] = {name: [] for name in ("answer", "wrong", "template", "kind")}
    for number in range(n):
        kind, template, text = order[number % len(order)]
        place, thing = (str(rng.choice(data[what][half])) for what in ("places", "objects"))
        a, b, x, y, z = (str(name) for name in rng.choice(sorted(names), size=NAMES, replace=False))
        text = text.replace("[PLACE]", place).replace("[OBJECT]", thing)
        row = _encoded(tokenizer, text, a, b, b)
        found = _located(row, names[a], names[b], text)
        for name, position in zip(places, found, strict=True):
            places[name].append(position)
        others = {"counterfactual": _encoded(tokenizer, text, x, y, z), "control": _encoded(tokenizer, text, a, b, z)}
        for name, other in {"prompt": row, **others}.items():
            if len(other) != len(row):
                raise UnfitTask(f"The tokenizer writes '{text}' in different lengths for different names.")
            rows[name].append(other)
        for name, value in zip(labels, (names[a], names[b], template, kind), strict=True):
            labels[name].append(value)
    length = max(map(len, rows["prompt"]))
    if length > tokenizer.context:
        raise UnfitTask(f"ioi needs {length} positions; this model has {tokenizer.context}.")
    positions = {name: torch.tensor(values) for name, values in places.items()}
    known = {name: torch.tensor(values) for name, values in labels.items()}
    plain = {name: known[name] for name in ("template", "kind")}
    counterfactual = Batch(*_padded(rows["counterfactual"], length), positions, labels=plain)
    control = Batch(*_padded(rows["control"], length), positions, labels=known)
    facts = {"bos": tokenizer.bos, "names": len(names)}
    return Batch(
        *_padded(rows["prompt"], length),
        positions,
        labels=known,
        facts=facts,
        control=control,
        counterfactual=counterfactual,
    )


def _balanced(wordings: int, rng: np.random.Generator) -> list[int]:
    """All wordings in random order, B first and A first in turn; 0 to wordings - 1 are those with B first."""
    first, second = rng.permutation(wordings), rng.permutation(wordings) + wordings
    return [int(i) for pair in zip(first, second, strict=True) for i in pair]


def _encoded(tokenizer: Vocabulary, text: str, a: str, first: str, second: str) -> list[int]:
    """[bos] and the prompt up to the last word: `first` is B in the first clause, `second` in the second."""
    text = text.removesuffix(" [A]")
    head, _, tail = text.rpartition("[B]")
    whole = (head + second + tail).replace("[B]", first).replace("[A]", a)
    return [*edges(tokenizer)[0], *tokenizer.encode(whole)]


def _located(row: list[int], a: int, b: int, text: str) -> tuple[int, int, int, int, int]:
    """Positions of io, s1, s1 + 1, s2 and end, by token id. Raises UnfitTask where the names are not tokens of their own."""
    io, s = [i for i, one in enumerate(row) if one == a], [i for i, one in enumerate(row) if one == b]
    if len(io) != 1 or len(s) != 2:
        raise UnfitTask(f"The tokenizer does not keep the names of '{text}' apart from their neighbours.")
    return io[0], s[0], s[0] + 1, s[1], len(row) - 1


def _padded(rows: list[list[int]], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask [example, length], padded on the right."""
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]
    return tokens, mask


__getattr__ = old_names(__name__)
