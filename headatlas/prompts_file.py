"""A user's own prompts: a file with one JSON object a line, read into a Batch; a bad line is named by its number.

    {"clean": "The capital of France is", "corrupted": "The capital of Italy is", "answer": " Paris", "wrong": " Rome"}
    {"text": "I loved every minute of it", "label": "positive"}

Answers are taken as written: the next token of an English text mostly begins with a space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from headatlas.errors import BadInput
from headatlas.model.text.reading import fitted, padded, text_facts
from headatlas.model.text.reading import one_prompt as one_prompt
from headatlas.model.text.start_end import first_written, rule_of
from headatlas.reading.prompt_lines import prompt_lines
from headatlas.task import Batch, Vocabulary


def read_prompts(path: str | Path, tokenizer: Vocabulary) -> Batch:
    """The prompts of a JSONL file. Raises BadInput naming file, line and cure.

    Pairs become a batch with answer, wrong and positions["end"], and their corrupted prompts its counterfactual. Labelled texts
    become a batch with labels["label"] numbered in the order of facts["classes"], and labels["group"] where lines have one.
    Where the model is an encoder-decoder, the end of a pair is what its decoder reads before the first token that it writes.
    """
    file = Path(path)
    lines = prompt_lines(file)
    if "text" in lines[0][1]:
        return _labelled(file, lines, tokenizer)
    return _pairs(file, lines, tokenizer)


def _pairs(file: Path, lines: Sequence[tuple[int, dict[str, Any]]], tokenizer: Vocabulary) -> Batch:
    rows = [_ids(file, number, value["clean"], tokenizer) for number, value in lines]
    answers, wrongs = (
        [one_token(_at(file, number), value[name], name, tokenizer) for number, value in lines]
        for name in ("answer", "wrong")
    )
    for number, value in lines:
        for prompt in ("clean", "corrupted"):
            for name in ("answer", "wrong"):
                if prompt in value and not rule_of(tokenizer).two_stacks:  # there the answer does not follow the prompt
                    demand_boundary(_at(file, number), value[prompt], value[name], tokenizer)
    for (number, _), answer, wrong in zip(lines, answers, wrongs, strict=True):
        if answer == wrong:
            raise BadInput(f"Line {number} of {file.name}: answer and wrong are the same token.")
    others = None
    if "corrupted" in lines[0][1]:
        others = [_ids(file, number, value["corrupted"], tokenizer) for number, value in lines]
    length = max(len(row) for row in rows + (others or []))
    labels = {"answer": torch.tensor(answers), "wrong": torch.tensor(wrongs)}
    lines_at = torch.tensor([number for number, _ in lines])
    counterfactual = padded(others, length, labels={"line": lines_at}) if others is not None else None
    batch = padded(rows, length, labels={**labels, "line": lines_at}, counterfactual=counterfactual)
    if rule_of(tokenizer).two_stacks:
        written = torch.full((len(rows),), first_written(tokenizer))
        batch = replace(batch, positions={"end": written})
        if counterfactual is not None:
            batch = replace(batch, counterfactual=replace(counterfactual, positions={"end": written}))
    texts = [value[name] for _, value in lines for name in ("clean", "corrupted") if name in value]
    return text_facts(batch, texts, tokenizer)


def _labelled(file: Path, lines: Sequence[tuple[int, dict[str, Any]]], tokenizer: Vocabulary) -> Batch:
    classes = sorted({str(value["label"]) for _, value in lines})
    rows = [_ids(file, number, value["text"], tokenizer) for number, value in lines]
    label = torch.tensor([classes.index(str(value["label"])) for _, value in lines])
    line = torch.tensor([number for number, _ in lines])
    labels = {"label": label, "line": line}
    if "group" in lines[0][1]:
        groups = sorted({str(value["group"]) for _, value in lines})
        labels["group"] = torch.tensor([groups.index(str(value["group"])) for _, value in lines])
    return text_facts(
        padded(rows, labels=labels, facts={"classes": classes}), [value["text"] for _, value in lines], tokenizer
    )


def _ids(file: Path, number: int, text: str, tokenizer: Vocabulary) -> list[int]:
    return fitted(_at(file, number), text, tokenizer)


def _at(file: Path, number: int) -> str:
    return f"Line {number} of {file.name}"


def demand_boundary(where: str, prompt: str, answer: str, tokenizer: Vocabulary) -> None:
    """Raise BadInput naming `where` they stand where prompt and answer, read as one text, are cut into other tokens than read apart.

    The answer's token would then be scored where the model never saw it: after a prompt that ends in a space, " Paris"
    stands for two spaces.
    """
    whole = tokenizer.encode(prompt + answer)
    blanks = prompt[-1:].isspace() and answer[:1].isspace()
    if blanks or whole != [*tokenizer.encode(prompt), *tokenizer.encode(answer)]:
        end = prompt[-12:]
        hint = (
            "Leave the space at the end of the prompt out."
            if prompt.endswith(" ")
            else "End the prompt at a word's end."
        )
        raise BadInput(
            f"{where}: '{end}' and '{answer}' {'put two blanks together' if blanks else 'have other tokens together than apart'}.",
            hint,
        )


def one_token(where: str, word: str, name: str, tokenizer: Vocabulary) -> int:
    """The id of an answer. Raises BadInput naming `where` it stands where it takes several tokens."""
    one = tokenizer.single(word)
    if one is not None:
        return one
    pieces = [tokenizer.decode(token) for token in tokenizer.encode(word)]
    if not word.startswith(" ") and tokenizer.single(f" {word}") is not None:
        hint = f"Write ' {word}' with its leading space, which is one token."
    else:
        hint = f"Use answers of one token, such as its first, '{pieces[0] if pieces else ''}', if it tells them apart."
    raise BadInput(f"{where}: {name} '{word}' is {len(pieces)} tokens ({' | '.join(pieces)}).", hint)
