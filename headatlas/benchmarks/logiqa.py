"""LogiQA: a passage, a question and four options, in blocks of eight lines or as the Hub has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headatlas.benchmarks._published import Item, letters, published
from headatlas.benchmarks._rows import Fields, Layout
from headatlas.errors import BadInput
from headatlas.own_prompts.rows import Row
from headatlas.reading import Source, read_text

_LINES = 8  # a blank one, the letter, the passage, the question, four options
_RIGHT: dict[Any, int] = {**{letter: i for i, letter in enumerate("abcd")}, **{i: i for i in range(4)}}


def _blocks(source: Source) -> Iterator[Row]:
    name, lines = source.path.name, read_text(source).rstrip("\n").split("\n")
    for start in range(0, len(lines), _LINES):
        block = [line.strip() for line in lines[start : start + _LINES]]
        where = f"Lines {start + 1} to {start + len(block)} of {name}"
        if len(block) < _LINES or block[0]:
            raise BadInput(f"{where}: a blank line and seven with text are wanted.", source.hint)
        _, right, context, query, *options = block
        bare = [text[2:].strip() if text[1:2] == "." else text for text in options]
        yield Row(where, start + 1, {"context": context, "query": query, "options": bare, "correct_option": right})


@published(
    layout=Layout(("context",), read=_blocks, suffixes=(".txt", ".json", ".jsonl", ".parquet")),
    files="Train.txt, Eval.txt or Test.txt (blocks of eight lines), or context, query, options and correct_option as on the Hub",
    hub="lucasmccabe/logiqa@refs/convert/parquet:default:test",
    card="https://huggingface.co/datasets/lucasmccabe/logiqa",
    licence="none stated",
    metrics=("accuracy", "logit-margin", "aoc"),
)
def logiqa(row: Fields) -> Item:
    """A passage, a question with options A to D and "Answer:"; the answer is the letter."""
    return letters(
        row.text("query"), row.texts("options", 4), row.one_of("correct_option", _RIGHT), context=row.text("context")
    )
