"""Prompts of one's own as a Batch: their answers, counterfactuals and named spans, checked row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headatlas.errors import BadInput
from headatlas.model import Model
from headatlas.model.text.reading import chat_text, fitted, padded, text_facts
from headatlas.model.text.start_end import first_written, rule_of
from headatlas.model.text.tokenizer import Tokenizer
from headatlas.model.text.two_stacks import completed
from headatlas.own_prompts.places import span_positions
from headatlas.own_prompts.rows import Row
from headatlas.own_prompts.spans import Span
from headatlas.own_prompts.written import Columns, Written, rows_written
from headatlas.prompts_file import demand_boundary, one_token, read_prompts
from headatlas.reading.prompt_lines import is_former
from headatlas.task import Batch, edges


@dataclass(frozen=True)
class _Prompt(Written):
    """One row with the ids of its answers and wrong answers, one after the other."""

    answer_ids: list[list[int]] = field(default_factory=list)
    wrong_ids: list[list[int]] = field(default_factory=list)


def prompts(
    model: Model | Tokenizer,
    source: Any,
    *,
    prompt: str = "prompt",
    answer: str = "answer",
    wrong: str = "wrong",
    counterfactual: str = "counterfactual",
    spans: str = "spans",
    template: str | None = None,
) -> Batch:
    """Prompts of your own as a Batch of this model.

    source: a list of dictionaries (or of texts, or of chats), a file (.csv, .tsv, .json, .jsonl, .parquet), a pandas or Arrow
    table, a data set of `datasets`. The other arguments are names of columns. prompt: a text, read exactly as given, or a chat
    (a list of role and content), written by the tokenizer's own template. answer: a text, or a list of right answers, of as
    many tokens as they have; left out in all rows: effects are then measured against the clean run. wrong: the same for wrong
    answers. counterfactual: the prompt with the deciding words changed. spans: name -> the words in the prompt,
    or [from, to] in characters, or a list of these; each becomes positions of that name.
    template: "When {subject} and {other} ...": prompts are made of it, the fields are columns, and spans of their names;
    `counterfactual` may then be a dictionary of the fields that change.

    The Batch has positions["end"], labels["answer"] and ["wrong"] [example, k] (the first token of each, -1 for none),
    labels["row"], and for answers of several tokens labels["targets"] [example, n] with positions["predict"]: these are read
    behind the prompt. Where some row has several right answers and one takes several tokens, each row is an example for each of its
    answers, labels["alternative"] their number from 0: metrics count them together (`headatlas.task.answers.over_alternatives`).
    Raises BadInput naming the row and the column.
    """
    tokenizer = model.tokenizer if isinstance(model, Model) else model
    columns = Columns(prompt, answer, wrong, counterfactual, spans)

    def chat(where: str, messages: Sequence[Mapping[str, Any]]) -> str:
        return chat_text(where, messages, tokenizer)

    rows = rows_written(source, columns, template, chat)
    return _batch([_read(row, columns, tokenizer) for row in rows], columns, tokenizer)


def prompts_of_file(model: Model, path: str | Path) -> Batch:
    """The prompts of a file as `prompts` reads it, or of one of before (`read_prompts`). Raises BadInput naming file and line."""
    return read_prompts(path, model.tokenizer) if is_former(path) else prompts(model, path)


def _read(written: Written, columns: Columns, tokenizer: Tokenizer) -> _Prompt:
    """One row with the ids of its answers. Raises BadInput naming row and column."""
    row = written.row
    answers, wrongs = (
        _answers(row, name, words, written.text, tokenizer)
        for name, words in ((columns.answer, written.answers), (columns.wrong, written.wrongs))
    )
    _demand_apart(row, columns.answer, answers, tokenizer)
    first = {one[0] for one in answers}
    shared = next((one for one in wrongs if one[0] in first), None)
    if shared is not None:
        raise BadInput(
            f"{row.where}: '{columns.answer}' and '{columns.wrong}' begin with the same token "
            f"'{tokenizer.decode(shared[0])}', so that nothing tells them apart at the end of the prompt.",
            "Put what they share at the end of the prompt.",
        )
    if written.other is not None:
        _boundaries(row, columns.answer, written.answers, written.other, tokenizer)
    return _Prompt(**vars(written), answer_ids=answers, wrong_ids=wrongs)


def _answers(row: Row, column: str, words: Sequence[str], prompt: str, tokenizer: Tokenizer) -> list[list[int]]:
    """The ids of each answer of a row."""
    _boundaries(row, column, words, prompt, tokenizer)
    return [_ids(f"{row.where}, column '{column}'", word, tokenizer) for word in words]


def _ids(where: str, word: str, tokenizer: Tokenizer) -> list[int]:
    one = tokenizer.single(word)
    if one is not None:
        return [one]
    ids = tokenizer.encode(word)
    if not ids:
        raise BadInput(f"{where}: '{word}' has no tokens.", "Write at least one word.")
    if not tokenizer.causal:
        one_token(where, word, "answer", tokenizer)  # which refuses it with its pieces
    return ids


def _demand_apart(row: Row, column: str, answers: Sequence[list[int]], tokenizer: Tokenizer) -> None:
    """Raise BadInput where one right answer begins another: whoever writes the longer one has written both."""
    for i, short in enumerate(answers):
        for j, long in enumerate(answers):
            if i != j and long[: len(short)] == short:
                raise BadInput(
                    f"{row.where}, column '{column}': '{tokenizer.decode(long)}' begins with the right answer "
                    f"'{tokenizer.decode(short)}', so that its probability would count twice.",
                    "Leave one of them out.",
                )


def _boundaries(row: Row, column: str, words: Sequence[str], prompt: str, tokenizer: Tokenizer) -> None:
    if not rule_of(tokenizer).two_stacks:  # there the answer does not follow the prompt
        for word in words:
            demand_boundary(f"{row.where}, column '{column}'", prompt, word, tokenizer)


def _batch(read: Sequence[_Prompt], columns: Columns, tokenizer: Tokenizer) -> Batch:
    """The rows as tensors, one for each right answer that is read behind its prompt."""
    written = any(len(one) > 1 for item in read for one in item.answer_ids)
    each = [(item, number) for item in read for number in range(len(item.answer_ids) if written else 1)]
    sets = len(each) > len(read)
    read, numbers = [item for item, _ in each], [number for _, number in each]
    behind = [item.answer_ids[number] if written else [] for item, number in each]
    texts = [fitted(f"{one.row.where}, column '{columns.prompt}'", one.text, tokenizer) for one in read]
    others = [
        fitted(f"{one.row.where}, column '{columns.counterfactual}'", one.other, tokenizer)
        for one in read
        if one.other is not None
    ]
    two_stacks = rule_of(tokenizer).two_stacks
    for item, ids, more in zip(read, texts, behind, strict=True):
        what, taken = (
            ("prompt and answer have", len(ids)) if not two_stacks else ("the answer has", len(edges(tokenizer)[0]))
        )
        if more and taken + len(more) > tokenizer.context:
            raise BadInput(
                f"{item.row.where}: {what} {taken + len(more)} tokens; this model takes {tokenizer.context}."
            )
    # A decoder with an encoder reads its start and the answer; of one token it is asked before it reads any of it.
    apart = written and two_stacks
    length = max(len(ids) + len(more) for ids, more in zip([*texts, *others], [*behind, *behind], strict=False))
    labels = {"row": torch.tensor([one.row.number for one in read])}
    for name, found in (("answer", [one.answer_ids for one in read]), ("wrong", [one.wrong_ids for one in read])):
        if found[0]:
            labels[name] = _rectangle([list(dict.fromkeys(ids[0] for ids in one)) for one in found])
    if written:
        labels["targets"] = _rectangle(behind)
    if sets:
        labels["alternative"] = torch.tensor(numbers)

    def side(rows: list[list[int]], mine: Sequence[tuple[str, str, Mapping[str, list[Span]]]]) -> Batch:
        ends = _ends(rows, tokenizer)
        positions = {"end": ends, **span_positions(mine, tokenizer)}
        if written:
            offsets = torch.arange(labels["targets"].shape[1])
            positions["predict"] = torch.where(labels["targets"] >= 0, ends[:, None] + offsets, -1)
        if not apart:
            full = padded([ids + more for ids, more in zip(rows, behind, strict=True)], length, labels=labels)
            return replace(full, positions=positions)
        named = {name: at for name, at in positions.items() if name not in ("end", "predict")}
        source = completed(replace(padded(rows), positions=named), rule_of(tokenizer)).encoder
        full = padded([[*edges(tokenizer)[0], *more] for more in behind], labels=labels)
        # Words of the prompt stand in the encoder alone.
        positions |= {name: torch.full_like(at, -1) for name, at in named.items()}
        return replace(full, positions=positions, encoder=source)

    batch = side(texts, [(one.row.where, one.text, one.spans) for one in read])
    if others:
        turned = [(one.row.where, str(one.other), one.other_spans) for one in read]
        other = side(others, turned)
        other = _with_places_of(batch, other)
        if apart:
            assert batch.encoder is not None
            assert other.encoder is not None
            other = replace(other, encoder=_with_places_of(batch.encoder, other.encoder))
        batch = replace(batch, counterfactual=other)
    whole = [text for one in read for text in (one.text, one.other) if text is not None]
    facts = {"prompts": "one's own", "answers": _said(read, written, sets)}
    return text_facts(replace(batch, facts=facts), whole, tokenizer)


def _with_places_of(batch: Batch, other: Batch) -> Batch:
    """Counterfactual prompts with the places of their prompts' words that they name none of, where both are of one length."""
    alike = batch.mask.sum(1) == other.mask.sum(1)
    shared = {
        name: at.where(alike.view(-1, *[1] * (at.ndim - 1)), torch.tensor(-1)) for name, at in batch.positions.items()
    }
    return replace(other, positions={**shared, **other.positions})


def _ends(rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> Tensor:
    """Where the answer is predicted: each prompt's last token, or the decoder's last token before it writes."""
    if rule_of(tokenizer).two_stacks:
        return torch.full((len(rows),), first_written(tokenizer))
    return torch.tensor([len(row) - 1 for row in rows])


def _rectangle(rows: Sequence[Sequence[int]]) -> Tensor:
    """[example, k] ids, -1 behind those that a row has."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])


def _said(read: Sequence[_Prompt], written: bool, sets: bool) -> str:
    if not read[0].answers:
        return "none: effects are measured against the clean run"
    if sets:
        return (
            "sets of several tokens, read behind the prompt and counted together; compared with wrong ones by the first"
        )
    if written:
        return "of several tokens, read behind the prompt; compared with wrong ones by the first"
    return "of one token" if max(len(one.answer_ids) for one in read) == 1 else "sets of one token each"
