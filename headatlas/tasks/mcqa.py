"""Multiple-choice questions: options behind labels, and the label of the right one is asked for. Lieberum et al. 2023."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Task, Vocabulary, halves, logit_margin
from headatlas.tasks._prompts import (
    FIRST,
    Example,
    Piece,
    collect,
    filled,
    forever,
    halved,
    pick,
    shuffled,
    singles,
    table,
)

OPTIONS = (2, 3, 4)
SHOTS = (0, 3)


def _build(
    tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str, options: int, shots: int
) -> Batch:
    """A batch of questions with `options` options, after `shots` answered ones."""
    data = table("mcqa", family)
    sets = {name: singles(tokenizer, labels) for name, labels in data["labels"].items()}
    usable = [name for name, labels in data["labels"].items() if len(sets[name]) == len(labels)]
    if not usable:
        raise UnfitTask("mcqa needs option labels that are one token; this tokenizer splits them all.")
    groups = [halved(questions, half) for questions in data["questions"].values()]
    everything = [(group, question) for group, questions in enumerate(groups) for question in questions]
    size = {question["question"]: len(tokenizer.encode(question["question"])) for _, question in everything}
    what = f"mcqa-{options}" + (f"-{shots}-shot" if shots else "")

    def asked(question: str, shown: Sequence[str], labels: Sequence[str], style: dict[str, str]) -> list[Piece]:
        pieces = filled(style["question"], question=question)
        for i, (label, option) in enumerate(zip(labels, shown, strict=True)):
            # A label at the start of a line has no space before it; the answer, which has one, is another token.
            line = filled(style["option"], label=label, option=option)
            pieces += [piece._replace(role=f"{piece.role}{i + 1}") if piece.role else piece for piece in line]
        return [*pieces, Piece(style["end"])]

    def arranged(question: dict[str, list[str]], right: int) -> list[str]:
        wrong = pick(question["options"][1:], rng, options - 1)
        return [*wrong[:right], question["options"][0], *wrong[right:]]

    def draw(right: int) -> Example:
        place, number = int(rng.integers(len(usable))), int(rng.integers(len(data["formats"])))
        labels, style = data["labels"][usable[place]][:options], data["formats"][number]
        (group, question), *others = pick(everything, rng, 1 + shots)
        front: list[Piece] = []
        for _, other in others:
            where = int(rng.integers(options))
            front += asked(other["question"], arranged(other, where), labels, style)
            front.append(Piece(f" {labels[where]}\n\n"))
        front = [Piece(piece.text) for piece in front]
        shown = arranged(question, right)
        moved, to = list(shown), (right + int(rng.integers(1, options))) % options
        moved[right], moved[to] = moved[to], moved[right]
        # The control's question has none of the options for its answer.
        strange = [
            other
            for i, other in everything
            if i != group and other["options"][0] not in shown and size[other["question"]] == size[question["question"]]
        ] or [question]  # the same question again makes no control and is refused
        stranger = shuffled(strange, rng)[0]["question"]
        prompts = [
            [*front, *asked(text, order, labels, style)]
            for text, order in ((question["question"], shown), (question["question"], moved), (stranger, shown))
        ]
        ids = sets[usable[place]]
        wrong = [ids[label] for i, label in enumerate(labels) if i != right]
        known = {"right": right, "labels": place, "format": number}
        return Example(prompts, [ids[labels[right]]], wrong, known)

    sources = [forever(functools.partial(draw, right)) for right in range(options)]
    return collect(what, tokenizer, n, sources, half=half, label_sets=usable, shots=shots)


def _tasks(options: int, shots: int) -> tuple[Task, Task]:
    def build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
        return _build(tokenizer, n, rng, half, family, options, shots)

    doc = f"""[bos] {f"{shots} answered questions and " if shots else ""}a question with {options} options behind labels: the label of the right one.

    The right option stands in each place in turn (label right); label sets (label labels: the place in
    facts["label_sets"]) and two forms (label format) are drawn; the halves share no question. Positions: question,
    label1, option1, ... (all tokens each), end. Metric: logit of the right label minus the highest of the others. Counterfactual: the
    right option has changed places with another. Control: a question that none of the options answers.
    """
    name = f"mcqa-{options}" + (f"-{shots}-shot" if shots else "")
    return halves(
        name,
        build,
        metric=logit_margin,
        version=1,
        margin=0.3,
        doc=doc,
        second="Options in other forms, behind other words.",
    )


TASKS = tuple(one for options in OPTIONS for shots in SHOTS for one in _tasks(options, shots))
