"""The same simple sentences in five languages, a text in each: which heads serve one of them? Liu et al. 2025."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges, next_token_loss, task
from headatlas.tasks._prompts import FIRST, SECOND, table

LENGTH, SHORTEST = 64, 40  # tokens of a text
SLOTS = ("time", "subject", "verb", "object", "place")


def _second(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """Sentences that begin with who does it, and not with when."""
    return _built(tokenizer, n, rng, SECOND)


@task(metric=next_token_loss, version=1, margin=0.3, second=_second)
def parallel_languages(tokenizer: Vocabulary, n: int, rng: np.random.Generator) -> Batch:
    """[bos] and 63 tokens of "Today, the teacher buys the book in the garden. ...": English, French, German, Spanish and Italian in turn.

    Five texts that follow each other say the same (label language: the place in facts["languages"]); loss is counted on every token
    after the eighth. Control: the same tokens in random order.
    """
    return _built(tokenizer, n, rng, FIRST)


def _built(tokenizer: Vocabulary, n: int, rng: np.random.Generator, family: str) -> Batch:
    data = table("parallel_languages", family)
    front, back = edges(tokenizer)
    length = min(LENGTH, tokenizer.context)
    if length < SHORTEST:
        raise UnfitTask(f"parallel-languages needs {SHORTEST} positions; this model has {tokenizer.context}.")
    languages, room = data["languages"], length - len(front) - len(back)
    rows, mixed = [], []
    meanings: list[dict[str, int]] = []
    for row in range(n):
        language = row % len(languages)
        if language == 0:  # more sentences than any language has room for
            meanings = [{slot: int(rng.integers(len(data[slot]))) for slot in SLOTS} for _ in range(room)]
        text: list[int] = []
        for number, meaning in enumerate(meanings):
            if len(text) >= room:
                break
            text += tokenizer.encode((" " if number else "") + _sentence(data, meaning, language))
        rows.append([*front, *text[:room], *back])
        mixed.append([*front, *(text[i] for i in rng.permutation(room)), *back])
    tokens = torch.tensor(rows)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    positions = {"predict": torch.arange(8, length - 1).expand(n, -1)}
    control = Batch(torch.tensor(mixed), mask, positions)
    return Batch(
        tokens, mask, positions, labels={"language": torch.arange(n) % len(languages)}, facts={"languages": list(languages)},
        control=control,
    )  # fmt: skip


def _sentence(data: Mapping[str, Any], meaning: Mapping[str, int], language: int) -> str:
    words = {slot: data[slot][which].split(" | ")[language] for slot, which in meaning.items()}
    text = str(data["templates"][data["languages"][language]].format(**words))
    return text[0].upper() + text[1:]
