"""A period that begins in one year must end in a later year of the same century. Hanna et al. 2023."""

from __future__ import annotations

import string

import numpy as np

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, halves, probability_difference
from headatlas.tasks._prompts import FIRST, Example, Piece, collect, forever, table


def _build(tokenizer: Vocabulary, n: int, rng: np.random.Generator, half: str, family: str = FIRST) -> Batch:
    """[bos] "The war lasted from the year 1732 to the year 17": what follows must be greater than 32.

    Where the tokenizer writes years as two pairs of digits (facts["form"] is "pairs"), answers are all pairs above the
    year's and wrong are those up to it (Hanna et al. 2023); years 02 to 98. Where it splits digits ("digits"), answers are the
    tens digits above the year's and wrong are those below; the same digit may be right or wrong and does not count;
    tens digits 2 to 7. Positions: noun, century (first mention), year (the deciding token), end. Label: threshold.
    Metric: probability of the answers minus that of the wrong ones. Counterfactual: a year that ends in 01, the lowest there is (digits:
    a zero). Control: another year in the prompt than the one that the answers are above.
    """
    data = table("greater_than", family)
    before, middle, _, last = (text.rstrip() for text, *_ in string.Formatter().parse(data["template"]))
    pairs = _ids(tokenizer, [f"{i:02d}" for i in range(100)])
    digits = _ids(tokenizer, [str(i) for i in range(10)])
    form = "pairs" if len(pairs) == 100 and _pairs(tokenizer, pairs) else "digits"
    values, low, high, lowest = (pairs, 2, 98, 1) if form == "pairs" else (digits, 2, 7, 0)
    if len(values) < 10:
        raise UnfitTask("greater-than needs years written as digits or pairs of digits; this tokenizer joins them.")

    def draw() -> Example:
        noun = str(rng.choice(data["nouns"][half]))
        century = str(rng.choice(data["centuries"]))
        threshold, unit = int(rng.integers(low, high + 1)), int(rng.integers(10))
        other = int(rng.choice([value for value in range(low, high + 1) if value != threshold]))

        def prompt(value: int) -> list[Piece]:
            year = [Piece(f"{value:02d}", "year")] if form == "pairs" else [Piece(f"{value}", "year"), Piece(f"{unit}")]
            return [
                Piece(before), Piece(f" {noun}", "noun"), Piece(middle), Piece(f" {century}", "century"),
                *year, Piece(last), Piece(f" {century}"),
            ]  # fmt: skip

        answer = values[threshold + 1 :]
        wrong = values[: threshold + (form == "pairs")]
        return Example([prompt(threshold), prompt(lowest), prompt(other)], answer, wrong, {"threshold": threshold})

    return collect("greater-than", tokenizer, n, [forever(draw)], words=("year",), half=half, form=form)


def _ids(tokenizer: Vocabulary, numbers: list[str]) -> list[int]:
    """The tokens of numbers inside a word, where all have one."""
    found = [tokenizer.encode(number) for number in numbers]
    return [one[0] for one in found] if all(len(one) == 1 for one in found) else []


def _pairs(tokenizer: Vocabulary, pairs: list[int]) -> bool:
    """Whether a year such as " 1732" is written as two pairs."""
    return tokenizer.encode(" 1732")[-1] == pairs[32] and len(tokenizer.encode(" 1732")) == 2


greater_than, greater_than_held_out = halves(
    "greater-than",
    _build,
    metric=probability_difference,
    version=1,
    margin=0.1,
    second="What began in a year and was over by another.",
)
