"""MMLU: four lettered options a question, as CSV files without a head or as the Hub has it."""

from __future__ import annotations

from typing import Any

from headatlas.benchmarks._published import Item, letters, published
from headatlas.benchmarks._rows import Fields, Layout

_LETTERS = "ABCD"
_RIGHT: dict[Any, int] = {**{letter: i for i, letter in enumerate(_LETTERS)}, **{i: i for i in range(4)}}


@published(
    layout=Layout(("question", "choices", "answer"), head=("question", *_LETTERS, "answer")),
    files="the .csv files of its data folder (question, four options, letter), or question, choices and answer as on the Hub",
    hub="cais/mmlu:all:test",
    card="https://huggingface.co/datasets/cais/mmlu",
    licence="MIT",
    metrics=("accuracy", "logit-margin"),
)
def mmlu(row: Fields) -> Item:
    """A question with options A to D and "Answer:"; the answer is the letter, without examples before it (papers give five)."""
    options = row.texts("choices", 4) if "choices" in row else [str(row.any(letter)).strip() for letter in _LETTERS]
    return letters(row.text("question"), options, row.one_of("answer", _RIGHT))
