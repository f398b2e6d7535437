"""Questions about facts with true and false answers written behind them, and sigma as ITI takes it: what ITI and NL-ITI are fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from headatlas.apply.recipe.choosing import answered
from headatlas.apply.steering.direction import Steering, spread_along
from headatlas.errors import BadInput
from headatlas.model import Model
from headatlas.model.text.reading import padded
from headatlas.task import Batch, Vocabulary
from headatlas.tasks._prompts import halved, shuffled, table

RIVALS = 3  # false answers beside the true one


def sized_by_next(model: Model, steering: Steering, batch: Batch, seed: int) -> Steering:
    """The same directions with sigma over question, answer and another question, at its last token, as ITI has it."""
    front = len(model.tokenizer.front)
    ends = batch.positions["end"].reshape(len(batch)).tolist()
    texts = [row[mask].tolist() for row, mask in zip(batch.tokens, batch.mask, strict=True)]
    starts = batch.mask.long().argmax(1).tolist()
    other = np.random.default_rng(seed).permutation(len(texts))
    rows = [[*text, *texts[j][front : ends[j] - starts[j] + 1]] for text, j in zip(texts, other.tolist(), strict=True)]
    if max(map(len, rows)) > model.tokenizer.context:
        raise BadInput(
            f"Two of these prompts together are longer than the {model.tokenizer.context} tokens of {model.name}."
        )
    both = padded(rows)
    at = both.positions["end"][:, None]
    heads = [key for key in steering.directions]
    spread = spread_along(model, heads, both, steering.directions, "z", at)  # type: ignore[arg-type]
    return replace(steering, spread=spread)


def prompts(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str) -> Batch:
    """`n` questions about facts, each with its true answer and three false ones, which are true answers of other questions."""
    return answered(tokenizer, _items(n, rng, half))


def facts_of(half: str, rivals: int) -> list[tuple[str, str, list[str]]]:
    """(prompt, what completes it, all objects of its relation in this half) of relations that have more objects than `rivals`."""
    found = []
    for relation in table("facts")["relations"].values():
        known = dict(halved(relation["pairs"].items(), half))
        objects = sorted(set(known.values()))
        if len(objects) > rivals:
            prompt = relation["templates"][0]
            found += [(prompt.replace("{subject}", one), value, objects) for one, value in known.items()]
    return found


def _items(n: int, rng: np.random.Generator, half: str) -> Iterator[tuple[str, str, bool, int]]:
    for number, (prompt, value, objects) in enumerate(shuffled(facts_of(half, RIVALS), rng)[:n]):
        wrong = [str(one) for one in rng.permutation([one for one in objects if one != value])[:RIVALS]]
        yield from ((prompt, answer, answer == value, number) for answer in (value, *wrong))
