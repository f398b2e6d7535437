"""Prompts made of pieces: what all tasks with written prompts share, from the bundled words to a checked batch."""

from __future__ import annotations

import functools
import itertools
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import yaml
from torch import Tensor

from headatlas.errors import UnfitTask
from headatlas.task import Batch, Vocabulary, edges

T = TypeVar("T")
TRIES = 200  # examples in a row that do not fit before a source of examples counts as dry


class Piece(NamedTuple):
    """A stretch of a prompt with its role ("" for none): text, or token ids that are fed as they are."""

    text: str
    role: str = ""
    ids: tuple[int, ...] = ()


Pieces = Sequence[Piece]


@dataclass(frozen=True)
class Example:
    """A prompt, its counterfactual and its control, in this order; the ids of right and wrong answers; labels."""

    prompts: Sequence[Pieces]
    answer: Sequence[int]
    wrong: Sequence[int]
    labels: Mapping[str, int] = field(default_factory=dict)


class _Misfit(Exception):
    """This example cannot be used with this tokenizer; another one may."""


FIRST, SECOND = "first", "second"  # families of prompts: the task's own, and one of other templates and another format


@functools.cache
def table(name: str, family: str = FIRST) -> Mapping[str, Any]:
    """A file of tasks/data, such as table("facts") or table("icl/antonym"); for the second family with what differs there."""
    if family == SECOND:
        return _with(table(name), table("second")[name])
    file = resources.files("headatlas.tasks").joinpath("data", *f"{name}.yaml".split("/"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same result, seven times as fast, where it is built
    found: Mapping[str, Any] = yaml.load(file.read_text(encoding="utf-8"), loader)
    return found


def _with(data: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    """Data with the values of `other` in place of its own; mappings are joined, lists are replaced."""
    changed = {name: _with(data[name], value) if isinstance(value, Mapping) else value for name, value in other.items()}
    return {**data, **changed}


def halved(items: Iterable[T], half: str) -> list[T]:
    """Every other item: the first, third ... for half "find", the second, fourth ... for "test"."""
    return list(items)[half == "test" :: 2]


def filled(template: str, **slots: str) -> list[Piece]:
    """The template's pieces, each slot with the space before it; a slot's name is its role, at its second place name_2."""
    pieces: list[Piece] = []
    seen: dict[str, int] = {}
    for text, name, _, _ in string.Formatter().parse(template):
        space = " " if name is not None and text.endswith(" ") else ""
        if text.removesuffix(space):
            pieces.append(Piece(text.removesuffix(space)))
        if name is not None:
            seen[name] = seen.get(name, 0) + 1
            pieces.append(Piece(space + slots[name], name if seen[name] == 1 else f"{name}_{seen[name]}"))
    return pieces


def first_id(tokenizer: Vocabulary, word: str) -> int:
    """The first token of a word after a space."""
    whole = tokenizer.single(f" {word}")
    return whole if whole is not None else tokenizer.encode(f" {word}")[0]


def first_tokens(tokenizer: Vocabulary, pairs: Mapping[str, str]) -> dict[str, int]:
    """The objects (values) of a relation that their first token tells apart, with that token."""
    ids = {value: first_id(tokenizer, value) for value in dict.fromkeys(pairs.values())}
    uses = Counter(ids.values())
    return {value: one for value, one in ids.items() if uses[one] == 1}


def singles(tokenizer: Vocabulary, words: Iterable[str]) -> dict[str, int]:
    """The words that are one token after a space, with their ids."""
    found = {word: tokenizer.single(f" {word}") for word in words}
    return {word: one for word, one in found.items() if one is not None}


def shuffled(items: Iterable[T], rng: np.random.Generator) -> list[T]:
    """The items in random order."""
    known = list(items)
    return [known[i] for i in rng.permutation(len(known))]


def pick(items: Sequence[T], rng: np.random.Generator, n: int) -> list[T]:
    """`n` different items."""
    return [items[i] for i in rng.choice(len(items), size=n, replace=False)]


def laid_out(
    tokenizer: Vocabulary, pieces: Pieces, known: dict[str, list[int]]
) -> tuple[list[int], dict[str, list[int]]]:
    """[bos] and the ids of a prompt, and the positions of each role, checked against the encoding of the whole text.

    known: encodings met before. Raises _Misfit where the tokenizer joins a piece with its neighbour.
    """
    pieces = list(_merged(pieces))
    texts = [piece.text for piece in pieces if not piece.ids]
    for text in texts:
        if text not in known:
            known[text] = tokenizer.encode(text)
    parts = [known[text] for text in texts]
    whole = tokenizer.encode("".join(texts))
    if [one for part in parts for one in part] != whole:
        # A tokenizer that treats the start of a text in its own way: measure each piece inside the text.
        ends = [len(tokenizer.encode("".join(texts[: i + 1]))) for i in range(len(texts))]
        parts = [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        if any(tokenizer.encode("".join(texts[: i + 1])) != whole[:end] for i, end in enumerate(ends)):
            raise _Misfit("it joins words that the task has to keep apart")
    encoded = iter(parts)
    row = [*edges(tokenizer)[0]]
    positions: dict[str, list[int]] = {}
    for piece in pieces:
        ids = list(piece.ids) or next(encoded)
        if piece.role:
            positions.setdefault(piece.role, []).extend(range(len(row), len(row) + len(ids)))
        row += ids
    return row, positions


def _merged(pieces: Pieces) -> Iterator[Piece]:
    """The pieces with neighbours that have no role put together: blanks are encoded by what follows them."""
    for plain, group in itertools.groupby(pieces, key=lambda piece: not piece.role and not piece.ids):
        if plain:
            yield Piece("".join(piece.text for piece in group))
        else:
            yield from group


def collect(
    what: str,
    tokenizer: Vocabulary,
    n: int,
    sources: Sequence[Iterator[Example]],
    *,
    words: Sequence[str] = (),
    spans: Sequence[str] = (),
    even: bool = True,
    **facts: Any,
) -> Batch:
    """A batch of the first `n` different examples that the tokenizer can express, from the sources in turn.

    An example fits if its prompt, counterfactual and control have the same number of tokens, within the context, and
    every role in `words` is one token; `words` become positions [example], other roles [example, k], -1 where absent.
    For a role in `spans` there is also role_last, the position [example] of its last token.
    even: all sources must give the same number (give or take one); otherwise those that run dry are passed over.
    Raises UnfitTask with how many there are and why there are no more.
    """
    if not tokenizer.causal:
        raise UnfitTask(f"{what} asks for the next word; this model has bidirectional attention.")
    known: dict[str, list[int]] = {}
    seen: set[tuple[int, ...]] = set()
    rows: list[_Row] = []
    reason = ""
    turn = list(sources)
    for number in itertools.count():
        if len(rows) == n or not turn:
            break
        source = turn[number % len(turn)] if even else turn[0]
        for example in itertools.islice(source, TRIES):
            try:
                row = _fitted(tokenizer, example, words, known)
            except _Misfit as misfit:
                reason = f": {misfit}"
                continue
            if tuple(row.tokens[0]) in seen:
                continue
            seen.add(tuple(row.tokens[0]))
            rows.append(row)
            if not even:
                turn.append(turn.pop(0))
            break
        else:
            turn = [] if even else turn[1:]
    if len(rows) < n:
        raise UnfitTask(
            f"{what} has {len(rows)} different prompts for this tokenizer and context, {n} were asked for{reason}."
        )
    return _batched(rows, words, spans, {"bos": tokenizer.bos, **facts})


class _Row(NamedTuple):
    """An example as tokens: prompt, counterfactual and control of one length, with their positions."""

    example: Example
    tokens: list[list[int]]
    positions: list[dict[str, list[int]]]


def _fitted(tokenizer: Vocabulary, example: Example, words: Sequence[str], known: dict[str, list[int]]) -> _Row:
    made: list[tuple[list[int], dict[str, list[int]]]] = []
    for part in example.prompts:
        row, positions = laid_out(tokenizer, part, known)
        if len(row) > tokenizer.context:
            raise _Misfit(f"prompts need {len(row)} positions, this model has {tokenizer.context}")
        if made and len(row) != len(made[0][0]):
            raise _Misfit("its words have different lengths in tokens")
        made.append((row, positions))
    broken = [role for _, positions in made for role in words if len(positions.get(role, [0])) != 1]
    if broken:
        raise _Misfit(f"it splits words that must be one token ({broken[0]})")
    if made[0][0] in (made[1][0], made[2][0]):
        raise _Misfit("nothing else of its length can take its place")
    if set(example.answer) & set(example.wrong):
        raise _Misfit("right and wrong answers begin with the same token")
    return _Row(example, [row for row, _ in made], [positions for _, positions in made])


def _batched(rows: Sequence[_Row], words: Sequence[str], spans: Sequence[str], facts: Mapping[str, Any]) -> Batch:
    length = max(len(row.tokens[0]) for row in rows)
    mask = torch.arange(length) < torch.tensor([len(row.tokens[0]) for row in rows])[:, None]
    roles = sorted({role for row in rows for positions in row.positions for role in positions})
    labels = {name: torch.tensor([row.example.labels[name] for row in rows]) for name in rows[0].example.labels}
    answers = {name: ids([getattr(row.example, name) for row in rows]) for name in ("answer", "wrong")}

    def batch(kind: int, **more: Any) -> Batch:
        tokens = torch.tensor([row.tokens[kind] + [0] * (length - len(row.tokens[kind])) for row in rows])
        positions = {}
        for role in roles:
            places = lists([row.positions[kind].get(role, []) for row in rows])
            positions[role] = places[:, 0] if role in words else places
            if role in spans:
                positions[f"{role}_last"] = places.amax(1)
        positions["end"] = mask.sum(1) - 1
        return Batch(tokens, mask, positions, facts=facts, **more)

    return batch(
        0, labels={**labels, **answers}, counterfactual=batch(1, labels=labels),
        control=batch(2, labels={**labels, **answers}),
    )  # fmt: skip


def lists(values: Sequence[Sequence[int]], filler: int = -1) -> Tensor:
    """Lists of different lengths as [example, longest], `filler` where absent; at least one column."""
    width = max(1, *(len(value) for value in values))
    return torch.tensor([[*value, *[filler] * (width - len(value))] for value in values])


def ids(values: Sequence[Sequence[int]]) -> Tensor:
    """Answer ids: [example] where each example has one, else [example, k] with -1 where there are fewer."""
    found = lists(values)
    return found[:, 0] if found.shape[1] == 1 else found


def forever(make: Callable[[], Example]) -> Iterator[Example]:
    """Examples drawn without end."""
    while True:
        yield make()
