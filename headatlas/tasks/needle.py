"""One odd fact inside a long text, asked for at the end: is it found, wherever it stands? Wu et al. 2024."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Task, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, filled, forever, shuffled, table

LENGTHS = (512, 1024, 2048, 4096, 8192)
SHORTEST = 128
DEPTHS = 10  # the needle stands behind 0/9, 1/9 ... 9/9 of the text


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str, length: int) -> Batch:
    """A batch of haystacks of `length` tokens."""
    if length > tokenizer.context:
        raise UnfitTask(f"needle needs {length} positions; this model has {tokenizer.context}.")
    if not tokenizer.causal:
        raise UnfitTask("needle asks for the next word; this model has bidirectional attention.")
    data = table("needle", family)
    fillers = [f" {sentence}" for sentence in data["fillers"]]
    size = [len(tokenizer.encode(sentence)) for sentence in fillers]
    kinds = list(data["needles"])

    def answer(kind: str) -> str:
        if kind == "number":
            return str(int(rng.integers(1000, 10_000)))
        return str(rng.choice(data[f"{kind}s"][half]))

    def draw(depth: int) -> Example:
        number = int(rng.integers(len(kinds)))
        kind, city = kinds[number], str(rng.choice(data["cities"][half]))
        right, other, third = (answer(kind) for _ in range(3))
        ids = [tokenizer.encode(f" {one}") for one in (right, other, third)]
        first = _first_difference(ids)
        question = filled(f"\n{data['needles'][kind]['question']}", city=city)
        asked = [piece._replace(role="asked" if piece.role == "city" else "") for piece in question]
        front = len(tokenizer.encode(data["needles"][kind]["text"].format(city=city, answer=right)))
        taken = front + sum(len(tokenizer.encode(piece.text)) for piece in asked) + len(ids[0]) + 8
        hay = _hay(fillers, size, length - taken, rng)
        place = round(len(hay) * depth / (DEPTHS - 1))

        def prompt(written: str) -> list[Piece]:
            text = filled(f" {data['needles'][kind]['text']}", city=city, answer=written)
            stuck = [piece._replace(role={"answer": "needle"}.get(piece.role, piece.role)) for piece in text]
            before, after = (Piece("".join(part)) for part in (hay[:place], hay[place:]))
            if not before.text:
                stuck[0] = Piece(stuck[0].text.lstrip())
            return [Piece(before.text.lstrip()), *stuck, after, *asked, Piece(f" {right}", "answer")]

        labels = {"kind": number, "depth": depth, "first": first}
        rivals = (ids[0][first], ids[1][first]) if first >= 0 else (0, 0)  # equal: refused as an example
        return Example([prompt(right), prompt(other), prompt(third)], rivals[:1], rivals[1:], labels)

    sources = [forever(functools.partial(draw, depth)) for depth in range(DEPTHS)]
    batch = collect("needle", tokenizer, n, sources, spans=(), half=half, length=length, kinds=kinds, depths=DEPTHS)
    return _forced(batch)


def _hay(fillers: list[str], size: list[int], room: int, rng: np.random.Generator) -> list[str]:
    """Different fillers in random order (again from the start when used up), as many as fit into `room` tokens."""
    found: list[str] = []
    while True:
        for i in shuffled(range(len(fillers)), rng):
            if size[i] > room:
                return found
            found.append(fillers[i])
            room -= size[i]


def _first_difference(ids: list[list[int]]) -> int:
    """The first token in which all of several answers differ, where they are equally long and alike before; else -1."""
    if len({len(one) for one in ids}) > 1:
        return -1
    for i, column in enumerate(zip(*ids, strict=True)):
        if len(set(column)) == len(ids):
            return i
        if len(set(column)) > 1:
            return -1
    return -1


def _forced(batch: Batch) -> Batch:
    """The answer stands at the end of each prompt; `end` is before its first deciding token, `predict` before each."""

    def moved(part: Batch) -> Batch:
        answer = part.positions["answer"]
        predict = answer.where(answer < 0, answer - 1)
        end = predict.gather(1, batch.labels["first"][:, None])[:, 0]
        return replace(part, positions={**part.positions, "predict": predict, "end": end})

    assert batch.counterfactual is not None
    assert batch.control is not None
    return replace(moved(batch), counterfactual=moved(batch.counterfactual), control=moved(batch.control))


def _tasks(length: int) -> tuple[Task, Task]:
    def build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
        # Only the shortest form bends to a short context; a length in the name is kept or refused.
        fit = min(length, tokenizer.context) if length == LENGTHS[0] else length
        return _build(tokenizer, n, rng, half, family, max(fit, SHORTEST))

    doc = f"""[bos] about {length} tokens of plain sentences with "The password for the old gate of Paris is copper." in them: what is it?

    Three kinds of needle (label kind: the place in facts["kinds"]) behind 0/9 to 9/9 of the sentences in turn (label
    depth). {"The length is at most the model's context, 128 or more; facts['length'] states it. " if length == LENGTHS[0] else ""}The answer is
    written at the end, so that each of its tokens can be read off. Positions: city, needle (all tokens of the answer in the text),
    asked (the city in the question), answer (all tokens of the answer at the end), predict (before each of these), end (before the first
    that decides). Metric: logit of that token minus that of another answer's. Counterfactual: the needle says the other answer.
    Control: the needle says a third.
    """
    name = "needle" if length == LENGTHS[0] else f"needle-{length}"
    return halves(
        name,
        build,
        metric=logit_difference,
        version=1,
        margin=2.0,
        doc=doc,
        second="Other odd facts, asked for in a quiz.",
    )


TASKS = tuple(one for length in LENGTHS for one in _tasks(length))
