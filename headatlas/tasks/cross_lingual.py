"""A note in one language and a question about it in another: is the answer right, and is it in the question's language? Guo et al. 2024."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, logit_margin
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, filled, first_id, forever, pick, table


def _right(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "Note : Anna a trois livres et Paul a neuf livres. How many books does Anna have?": the answer is three, or trois.

    Notes in English, French, Spanish and German (label note_in, in the order of facts["languages"]), questions in another of them (label
    question_in). Label asked: which of facts["names"]. Positions: asked (the name in the question), x and y (the numbers of the note),
    end. Metric: logit of the better of the right number's two words minus that of the other number's, in the order question's language, note's
    language. Counterfactual: the two numbers exchanged. Control: two numbers that are neither.
    """
    return _build("cross-lingual", tokenizer, n, rng, half, family, by_language=False)


def _in_language(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "Note : Anna a trois livres et Paul a neuf livres. How many books does Anna have?": the answer is in English, three (or nine).

    The same notes and questions as in `cross-lingual`. Metric: logit of the better of both numbers in the question's language, the right
    one first, minus that of the same in the note's. Counterfactual: the question in the note's language. Control: each token of the question is, at
    random, that of one question or of the other. Blank lines make up for what the two questions differ in length.
    """
    return _build("answer-language", tokenizer, n, rng, half, family, by_language=True)


def _build(
    what: str, tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str, *, by_language: bool
) -> Batch:
    data = table("cross_lingual", family)
    languages, names = data["languages"], data["names"][half]
    known = list(languages)
    ids = {name: [first_id(tokenizer, word) for word in languages[name]["numbers"]] for name in known}
    sizes = {name: [len(tokenizer.encode(f" {word}")) for word in languages[name]["numbers"]] for name in known}
    blank = tokenizer.encode("\n\n")
    if len(blank) > 2:
        raise UnfitTask(f"{what} needs blank lines of one token or two; this tokenizer splits them.")

    def draw(note_in: int, question_in: int) -> Example:
        note, question = known[note_in], known[question_in]
        thing = int(rng.integers(len(languages[note]["things"][half])))
        people = pick(range(len(names)), rng, 2)
        right, other, *rest = pick(range(len(ids[note])), rng, len(ids[note]))
        spare = [[one for one in rest if sizes[note][one] == sizes[note][like]] for like in (right, other)]
        neither = next((pair for pair in itertools.product(*spare) if pair[0] != pair[1]), (right, other))
        turned = int(rng.integers(2))  # whether the second of the two is asked about

        def noted(x: int, y: int) -> list[Piece]:
            numbers = [languages[note]["numbers"][one] for one in ((y, x) if turned else (x, y))]
            slots = dict(zip(("x", "y"), numbers, strict=True))
            first, second = (names[one] for one in people)
            given = languages[note]["things"][half][thing]
            pieces = filled(languages[note]["note"], first=first, second=second, things=given, **slots)
            return [piece if piece.role in ("x", "y") else piece._replace(role="") for piece in pieces]

        def asking(language: str) -> list[Piece]:
            asked = languages[language]["things"][half][thing]
            pieces = filled(languages[language]["question"], things=asked, asked=names[people[turned]])
            return [piece if piece.role == "asked" else piece._replace(role="") for piece in pieces]

        def options(language: str) -> list[int]:
            return [ids[language][one] for one in (right, other)]

        labels = {"note_in": note_in, "question_in": question_in, "asked": people[turned]}
        (right_asked, other_asked), (right_noted, other_noted) = options(question), options(note)
        if not by_language:
            prompts = [
                [*noted(*pair), Piece("\n"), *asking(question)] for pair in ((right, other), (other, right), neither)
            ]
            return Example(prompts, [right_asked, right_noted], [other_asked, other_noted], labels)
        rows = _even([_ids(tokenizer, asking(language)) for language in (question, note)], blank)
        mixed = [rows[int(rng.integers(2))][i] for i in range(len(rows[0]))]
        prompts = [[*noted(right, other), Piece("", "question", tuple(row))] for row in (*rows, mixed)]
        return Example(prompts, [right_asked, other_asked], [right_noted, other_noted], labels)

    pairs = [(a, b) for a in range(len(known)) for b in range(len(known)) if a != b]
    sources = [forever(functools.partial(draw, *pair)) for pair in pairs]
    return collect(what, tokenizer, n, sources, half=half, languages=known, names=list(names))


def _ids(tokenizer: Vocabulary, pieces: Sequence[Piece]) -> list[int]:
    return tokenizer.encode("\n" + "".join(piece.text for piece in pieces))


def _even(rows: list[list[int]], blank: list[int]) -> list[list[int]]:
    """Rows of one length: the shorter begins with more blank lines."""
    longest = max(map(len, rows))
    return [(blank * longest)[: longest - len(row)] + row for row in rows]


cross_lingual, cross_lingual_held_out = halves(
    "cross-lingual",
    _right,
    metric=logit_margin,
    version=2,
    margin=0.3,
    second="Other notes and questions: what was counted, and a sentence that the number ends.",
)
answer_language, answer_language_held_out = halves(
    "answer-language",
    _in_language,
    metric=logit_margin,
    version=2,
    margin=0.3,
    second="Other notes and questions: what was counted, and a sentence that the number ends.",
)
