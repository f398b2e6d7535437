"""Patterns of letters and of word pairs under labels that mean nothing: which is which, only examples tell. Crosbie and Shutova 2024."""

from __future__ import annotations

import functools
import string
from collections.abc import Callable

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Task, Vocabulary, halves, logit_difference
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, forever, halved, pick, shuffled, singles, table

SHOTS = 10  # the paper has 5 and 10
LABELS = ("foo", "bar")
LETTERS = ("repetition", "recursion", "center-embedding")

Item = tuple[str, ...]
Make = Callable[[int, np.random.Generator], Item]  # label -> the words of an item


def _letters(kind: str, usable: list[str]) -> Make:
    """Items of letters: under the first label of the pattern, under the second of as many letters that are all different."""

    def make(label: int, rng: np.random.Generator) -> Item:
        if label:
            return tuple(pick(usable, rng, 5 if kind == "center-embedding" else 4))
        a, b, c = pick(usable, rng, 3)
        return {"repetition": (a, b, a, b), "recursion": (a, b, b, b), "center-embedding": (a, b, c, b, a)}[kind]

    return make


def _pairs(classes: list[list[str]]) -> Make:
    """Items of two words: of the first two classes under the first label, of the last two under the second."""

    def make(label: int, rng: np.random.Generator) -> Item:
        first, second = classes[2 * label : 2 * label + 2]
        return str(rng.choice(first)), str(rng.choice(second))

    return make


def _build(kind: str, tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str) -> Batch:
    data = table("abstract_patterns", family)
    labels = singles(tokenizer, LABELS)
    if kind in LETTERS:
        usable = list(singles(tokenizer, halved(string.ascii_uppercase, half)))
        make, enough = _letters(kind, usable), len(usable) >= 5
    else:
        classes = [list(singles(tokenizer, halved(data["classes"][name], half))) for name in data["pairs"][kind]]
        make, enough = _pairs(classes), min(map(len, classes)) >= 3
    if len(labels) < 2 or not enough:
        raise UnfitTask(f"{kind} needs labels and words that are one token; this tokenizer splits them.")

    def draw(asked: int) -> Example:
        kinds = shuffled([0, 1] * (SHOTS // 2), rng)
        items = [make(one, rng) for one in kinds]
        query = make(asked, rng)
        while query in items:  # it would be answered by looking it up
            query = make(asked, rng)
        turned = 1 - np.array(kinds)
        mixed = shuffled(kinds, rng)
        if mixed == kinds:
            mixed = turned.tolist()
        prompts = []
        for given in (kinds, turned.tolist(), mixed):
            pieces = [Piece(data["instruction"])]
            for item, label in zip(items, given, strict=True):
                pieces += _shown(item, "item")
                pieces += [Piece(f" {LABELS[label]}", "label"), Piece("\n")]
            prompts.append([*pieces, *_shown(query, "query")])
        ids = [labels[LABELS[asked]], labels[LABELS[1 - asked]]]
        return Example(prompts, ids[:1], ids[1:], {"label": asked})

    def _shown(item: Item, role: str) -> list[Piece]:
        return [Piece(f" {word}", role) for word in item] + [Piece(data["then"])]

    sources = [forever(functools.partial(draw, asked)) for asked in (0, 1)]
    return collect(kind, tokenizer, n, sources, half=half)


def _tasks(kind: str, about: str) -> tuple[Task, Task]:
    def made(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
        return _build(kind, tokenizer, n, rng, half, family)

    doc = f"""{about} Ten examples with the label foo or bar, then a new one.

    Both labels are shown equally often and asked for in turn (label label); the halves share no letter and no word. Positions: item (all words of the
    examples), label (their labels), query (the words asked about), end. Metric: logit of the right label minus the other's.
    Counterfactual: all labels exchanged. Control: labels that follow no rule, as many of either.
    """
    return halves(
        kind,
        made,
        metric=logit_difference,
        version=1,
        margin=0.3,
        doc=doc,
        second="Another instruction, and arrows in place of colons.",
    )


TASKS = tuple(
    one
    for kind, about in (
        ("repetition", "foo: A B A B; bar: four different letters."),
        ("recursion", "foo: A B B B; bar: four different letters."),
        ("center-embedding", "foo: A B C B A; bar: five different letters."),
        ("fruit-animal", "foo: a fruit and an animal; bar: a piece of furniture and a profession."),
        ("vegetable-vehicle", "foo: a vegetable and a vehicle; bar: a part of the body and an instrument."),
    )
    for one in _tasks(kind, about)
)
